"""The keys of the control plane and of the nodes: who signs, and whose signature is valid."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
from django.conf import settings
from django.core.files.storage import default_storage

import decoding
from eventstore import database_now
from rollout.domain.errors import InvalidRolloutError, UntrustedNodeError
from rollout.domain.node.state import Identity, NodePhase
from rollout.models import Node
from rollout.signing import ControlSecret, Envelope, Purpose, UntrustedError, read, require

#: The recipient of a message that is for all nodes.
ALL_NODES = "all"
#: A request of a node may be so much older or newer than now, by the two clocks, seconds.
LARGEST_SKEW = 300.0


class Dated(Protocol):
    """`sent_at`: by the node's clock, Unix time in seconds."""

    @property
    def sent_at(self) -> float: ...


Said = TypeVar("Said", bound=Dated)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTrust:
    """What is known about the node's identity. `identity` is None if there is no such node. `public_keys`: those that are
    valid. `has_left`: it was decommissioned; its agent may say hello again."""

    node: str
    identity: Identity | None = None
    public_keys: tuple[str, ...] = ()
    has_left: bool = False

    def verify(self, envelope: Envelope, purpose: Purpose) -> str:
        """Return the public key that signed the envelope. Raises: `UntrustedError`."""
        require(envelope, purpose, self.node)
        if self.identity != Identity.SIGNED:
            raise UntrustedError(f"the identity of {self.node} is {self.identity or 'not known'}")
        for secret in control_secrets():
            for public_key in self.public_keys:
                if secret.is_from(envelope, public_key):
                    secret.verify(envelope, public_key)
                    return public_key
        raise UntrustedError(f"{envelope.key} is no key of {self.node}")


def trust_in(names: Iterable[str]) -> dict[str, NodeTrust]:
    """Return an entry for each name; one query."""
    names = set(names)
    rows = Node.objects.filter(name__in=names).values_list("name", "identity", "keys", "phase")
    found = {
        name: NodeTrust(
            node=name,
            identity=Identity(identity),
            public_keys=tuple(each[0] for each in keys),
            has_left=phase == NodePhase.DECOMMISSIONED,
        )
        for name, identity, keys, phase in rows
    }
    return {name: found.get(name) or NodeTrust(node=name) for name in names}


def said(envelope: Envelope, purpose: Purpose, kind: type[Said]) -> Said:
    """Return the message that the node of the envelope has signed lately.

    Raises: `UntrustedNodeError` unless the envelope is from the node; `InvalidRolloutError`.
    """
    try:
        trust_in([envelope.node])[envelope.node].verify(envelope, purpose)
        message = decoding.convert(read(envelope), kind)
    except UntrustedError as error:
        raise UntrustedNodeError from error
    except msgspec.ValidationError as error:
        raise InvalidRolloutError(f"payload: {error}") from error
    skew = message.sent_at - database_now().timestamp()
    if not abs(skew) <= LARGEST_SKEW:  # so that it cannot be repeated later
        raise InvalidRolloutError(
            f"sent_at: the clock of the node differs by {skew:.0f} s. The limit is {LARGEST_SKEW:.0f} s."
        )
    return message


def control_secrets() -> Sequence[ControlSecret]:
    """Return the control plane's keys: the one that signs first, then those that are still valid."""
    return _secrets(settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)


@lru_cache(maxsize=8)
def _secrets(*secret_keys: str) -> tuple[ControlSecret, ...]:
    return tuple(ControlSecret(each) for each in secret_keys)


def trust_document() -> dict[str, Any]:
    """Return what a node trusts, as JSON: the control plane's keys, and the hosts besides the control plane's own from which
    it may fetch packages."""
    return {"control_keys": [each.public for each in control_secrets()], "fetch_hosts": fetch_hosts()}


def signed_trust() -> list[Envelope]:
    """Return the trust document, signed with each key of the control plane: a node that knows one of them learns all."""
    return [each.sign(Purpose.TRUST, ALL_NODES, trust_document()) for each in control_secrets()]


def fetch_hosts() -> list[str]:
    """Return the hosts of a storage to which download links lead."""
    endpoint = getattr(default_storage, "endpoint_url", None)
    return [host] if endpoint and (host := urlsplit(endpoint).hostname) else []
