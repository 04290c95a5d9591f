"""Answers about join tokens, and the text that a person gets once."""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from shlex import quote
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils.crypto import salted_hmac

from api.fields import rfc3339
from eventstore import database_now
from rollout.domain.errors import InvalidTokenError, JoinTokenNotFoundError
from rollout.domain.node.state import Identity, NodePhase
from rollout.models import JoinToken, Node
from rollout.queries.trust import control_secrets

#: The server that the command names; a person changes it if the server listens elsewhere.
_SERVER = "unix:///run/redis/redis.sock"
_TEXT = re.compile(r"mfj1\.([0-9a-f]{32})\.([A-Za-z0-9_-]{43})\.[0-9a-f]{32}\.(?:[0-9a-f]{64}|-)", re.ASCII)


class TokenState(StrEnum):
    OPEN = "open"
    USED = "used"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenToken:
    """A token that a client sent. `id` is its id, if there is such a token."""

    id: str
    secret_sha256: str


def read_token(text: str) -> GivenToken:
    """Raises: `InvalidTokenError` if the text is not a token of this control plane. Nothing is looked up.

    The secret must be of a secret key that is valid now: someone with a former key can compute the secrets of its tokens.
    """
    if not (found := _TEXT.fullmatch(text)):
        raise InvalidTokenError
    secret_keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    if not any(compare_digest(found[2], _secret_of(found[1], each)) for each in secret_keys):
        raise InvalidTokenError
    return GivenToken(id=found[1], secret_sha256=_digest(found[2]))


def secret_sha256_of(token: str) -> str:
    """Return the SHA-256 of the token's secret, as hexadecimal digits."""
    return _digest(_secret_of(token))


def token_text(token: str) -> str:
    """Return the token as its user gets it: with the secret, and with what proves the control plane to a host."""
    return ".".join(("mfj1", token, _secret_of(token), control_secrets()[0].public.fingerprint, _ca_sha256()))


def host_command(row: JoinToken) -> str:
    """Return the command that installs an agent on a host with this token."""
    parts = [
        "modfleet",
        "agent",
        "install",
        "--control",
        settings.ENVIRONMENT.public_url,
        "--token",
        token_text(row.id),
    ]
    parts += ["--server", _SERVER, *(["--name", row.node] if row.node else []), *(["--observe"] if row.observe else [])]
    return " ".join(map(quote, parts))


def note_about(row: JoinToken) -> str | None:
    """Return what the token's creator must know: a node of the fleet has this name already."""
    node = Node.objects.filter(name=row.node, identity=Identity.SIGNED).exclude(phase=NodePhase.DECOMMISSIONED).first()
    if node is None:
        return None
    return f"The fleet has the node {node.name} already. A new key replaces its key only while it is offline."


def control_ca() -> str | None:
    """Return the certificate authority of the control plane as PEM, None if hosts trust it without Modfleet."""
    return pem_in(settings.ENVIRONMENT.control_ca)


@lru_cache(maxsize=4)  # settings do not change while a process runs
def pem_in(path: str) -> str | None:
    """Return the content of a file with a certificate authority; None for an empty path."""
    return Path(path).read_text() if path else None


def token_rows() -> QuerySet[JoinToken]:
    return JoinToken.objects.all()


def open_tokens_of(node: str) -> list[str]:
    """Return the ids of the tokens for this one node that were neither used nor revoked."""
    return list(JoinToken.objects.filter(node=node, used=0, revoked_at=None).values_list("id", flat=True))


def token_row(token: str) -> JoinToken:
    """Raises: `JoinTokenNotFoundError`."""
    row = JoinToken.objects.filter(id=token).first()
    if row is None:
        raise JoinTokenNotFoundError
    return row


def token_documents(rows: Iterable[JoinToken]) -> list[dict[str, Any]]:
    """Return the tokens as JSON, without their secrets."""
    now = database_now()
    return [_token_document(each, now) for each in rows]


def token_document(row: JoinToken) -> dict[str, Any]:
    return _token_document(row, database_now())


def _token_document(row: JoinToken, now: datetime) -> dict[str, Any]:
    return {
        "id": row.id,
        "node": row.node or None,
        "pattern": row.pattern or None,
        "uses": row.uses,
        "used": row.used,
        "labels": row.labels,
        "expires_at": rfc3339(row.expires_at),
        "auto_accept": row.auto_accept,
        "observe": row.observe,
        "state": state_of(row, now),
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
    }


def state_of(row: JoinToken, now: datetime) -> TokenState:
    if row.revoked_at is not None:
        return TokenState.REVOKED
    if row.used >= row.uses:
        return TokenState.USED
    return TokenState.EXPIRED if now >= row.expires_at else TokenState.OPEN


def _secret_of(token: str, secret_key: str | None = None) -> str:
    """Return the secret: 256 bits that only a process with the secret key can compute. So a POST that is repeated with its
    Idempotency-Key can be answered, and the database has only a hash."""
    digest = salted_hmac("rollout.join_token", token, secret=secret_key, algorithm="sha256").digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _ca_sha256() -> str:
    ca = control_ca()
    return "-" if ca is None else _digest(ca)
