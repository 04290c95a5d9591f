"""Access tokens: signed, short-lived, and not valid after the user's credential version was raised."""

import time

import jwt
from django.conf import settings
from django.utils.crypto import salted_hmac

from accounts.models import User

DEFAULT_TTL = 300
MAX_TTL = 86_400
_ALGORITHM = "HS256"
_CLAIMS = ["sub", "ver", "iat", "exp"]


def issue_token(user: User, *, ttl: int = DEFAULT_TTL) -> str:
    """Return a token that is valid for `ttl` seconds."""
    now = int(time.time())
    claims = {"sub": str(user.uid), "ver": user.credential_version, "iat": now, "exp": now + ttl}
    return jwt.encode(claims, _key(), algorithm=_ALGORITHM)


def user_of_token(token: str) -> User | None:
    """Return the user of the token. None if the token is expired, revoked, or for another server."""
    try:
        # The clock of another control plane process may be a little ahead: `iat` is not checked.
        claims = jwt.decode(token, _key(), algorithms=[_ALGORITHM], options={"require": _CLAIMS, "verify_iat": False})
        uid, version = int(claims["sub"]), int(claims["ver"])
    except (jwt.PyJWTError, ValueError):
        return None
    return User.objects.filter(uid=uid, credential_version=version, is_active=True).first()


def _key() -> bytes:
    return salted_hmac("accounts.tokens", "", secret=settings.SECRET_KEY, algorithm="sha256").digest()
