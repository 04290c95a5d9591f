"""Whether a message is from the node that it names. Nothing else in it is used before that is known.

A node that has joined signs its messages. A node from before messages were signed stays in service without signatures until
it joins or is revoked. Messages of all others are dropped and counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

import decoding
from rollout.domain.node.state import Identity
from rollout.messages import HEARTBEATS, REPORTS, Heartbeat, Name, Report, Reports, from_json
from rollout.queries.trust import NodeTrust, trust_in
from rollout.signing import Envelope, Purpose, UntrustedError, envelope_from, read
from rollout.transport import DROPPED

Message = TypeVar("Message", Report, Heartbeat)


@dataclass(frozen=True, slots=True)
class Verified(Generic[Message]):
    """`public_key`: the node's key that signed the message; empty if it is not signed. `is_new_key`: the node uses it for the
    first time, in place of an older one."""

    message: Message
    public_key: str = ""
    is_new_key: bool = False


class _RefusedError(Exception):
    def __init__(self, reason: str, words: object) -> None:
        super().__init__(words)
        self.reason = reason


def verified_reports(bodies: Iterable[Any]) -> list[Report]:
    """Return the reports that are from the nodes that they name. The others are logged and counted. One query."""
    return [each.message for each in _verified(bodies, REPORTS, Purpose.REPORTS)]


def verified_heartbeats(bodies: Iterable[Any]) -> list[Verified[Heartbeat]]:
    """Return the heartbeats that are from the nodes that they name. The others are logged and counted. One query."""
    return _verified(bodies, HEARTBEATS, Purpose.HEARTBEAT)


def _verified(bodies: Iterable[Any], queue: str, purpose: Purpose) -> list[Verified[Any]]:
    named = [(body, node) for body in bodies if (node := _node_of(body, queue))]
    trust = trust_in(node for _, node in named)
    found: list[Verified[Any]] = []
    for body, node in named:
        try:
            found += [*_opened(body, trust[node], purpose)]  # all or none
        except UntrustedError as error:
            DROPPED.note(queue, "untrusted", f"{node}: {error}")
        except msgspec.ValidationError as error:
            DROPPED.note(queue, "malformed", error)
        except _RefusedError as error:
            DROPPED.note(queue, error.reason, error)
    return found


def _node_of(body: Any, queue: str) -> str:
    """Return the name that the message has; empty if it has none that can be one."""
    try:
        return decoding.convert(body["node"], Name)
    except Exception:  # noqa: BLE001  # a foreign message can contain anything, such as half of a surrogate pair
        DROPPED.note(queue, "malformed", "no name of a node")
        return ""


def _opened(body: Any, trust: NodeTrust, purpose: Purpose) -> Iterator[Verified[Any]]:
    """Yield the messages in `body`. Raises: `UntrustedError`, `msgspec.ValidationError`, `_RefusedError`."""
    envelope: Envelope | None = envelope_from(body) if "signature" in body else None
    _require_identity(trust, is_signed=envelope is not None)
    public_key = "" if envelope is None else trust.verify(envelope, purpose)
    content = body if envelope is None else read(envelope)
    for message in _messages(content, purpose, is_signed=envelope is not None):
        if message.node != trust.node:
            raise UntrustedError(f"it names {message.node}")
        yield Verified(message, public_key, is_new_key=public_key not in ("", *trust.public_keys[:1]))


def _messages(content: Any, purpose: Purpose, *, is_signed: bool) -> Sequence[Report | Heartbeat]:
    """Return the messages. Reports without an envelope come one by one. Raises: `msgspec.ValidationError`."""
    if purpose == Purpose.HEARTBEAT:
        return [from_json(Heartbeat, content)]
    return from_json(Reports, content).reports if is_signed else [from_json(Report, content)]


def _require_identity(trust: NodeTrust, *, is_signed: bool) -> None:
    match trust.identity:
        case None:
            raise _RefusedError("unknown_node", f"{trust.node} has not joined")
        case Identity.PENDING | Identity.REVOKED:
            raise _RefusedError(f"{trust.identity}_node", f"the identity of {trust.node} is {trust.identity}")
        case Identity.SIGNED if not is_signed:
            raise _RefusedError("unsigned", f"{trust.node} has joined, so its messages must be signed")
        case Identity.UNSIGNED if is_signed:
            raise _RefusedError("unknown_key", f"{trust.node} has not joined this control plane")
