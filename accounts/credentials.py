"""Checks a login and a password without the slow hash on every request.

The process keeps a verified pair in memory for a minute, as a keyed HMAC, together with the user's credential version.
Each use compares the version with the database, so a changed password counts at once. Failures are not kept, only
counted. An unknown login takes as long as a wrong password.
"""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from threading import Lock

from django.contrib.auth.hashers import check_password, make_password

from accounts.failed_logins import count_failed_login, require_attempts_left
from accounts.models import User
from accounts.selectors import user_by_login
from eventstore import give_connection_back

REMEMBERED_SECONDS = 60.0
_REMEMBERED_AT_MOST = 1024


def verified_user(login: str, password: str, *, address: str) -> User | None:
    """Return the user with this login (name or email address) and password, or None. `address` is the client's.

    Raises: `TooManyRequestsError` after too many failures, except for a pair that is kept in memory.
    """
    if (known := remembered.get(login, password)) is not None:
        uid, version = known
        user = User.objects.filter(uid=uid, credential_version=version, is_active=True).first()
        if user is not None and user.logs_in_as(login):
            return user
    require_attempts_left(login, address=address)
    user = _checked_user(login, password)
    if user is None:
        count_failed_login(login, address=address)
        return None
    remembered.put(login, password, user)
    return user


def _checked_user(login: str, password: str) -> User | None:
    user = user_by_login(login)
    give_connection_back()  # the slow hash needs no database
    if user is None:
        make_password(password)
        return None
    return user if check_password(password, user.password) and user.is_active else None


class RememberedCredentials:
    """Keeps the newest verified pairs, and drops the oldest ones. Threads may share one object."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._key = secrets.token_bytes(32)
        self._entries: OrderedDict[bytes, tuple[int, int, float]] = OrderedDict()
        self._lock = Lock()

    def get(self, login: str, password: str) -> tuple[int, int] | None:
        """Return the uid and the credential version for which the pair was verified, or None."""
        with self._lock:
            uid, version, until = self._entries.get(self._digest(login, password), (0, 0, 0.0))
        return (uid, version) if time.monotonic() < until else None

    def put(self, login: str, password: str, user: User) -> None:
        entry = (user.uid, user.credential_version, time.monotonic() + REMEMBERED_SECONDS)
        digest = self._digest(login, password)
        with self._lock:
            self._entries[digest] = entry
            self._entries.move_to_end(digest)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def _digest(self, login: str, password: str) -> bytes:
        return hmac.digest(self._key, f"{login}\0{password}".encode(), hashlib.sha256)


remembered = RememberedCredentials(_REMEMBERED_AT_MOST)
