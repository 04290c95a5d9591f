"""Warnings about a node's identity and heartbeats, in words."""

from collections.abc import Iterable

from rollout.domain.node.degraded import in_full
from rollout.domain.node.pace import SECONDS
from rollout.domain.node.state import LARGEST_SKEW, Identity, NodePhase
from rollout.models import Node


def node_warnings(row: Node, clock_skew_seconds: float | None, doubts: Iterable[str]) -> list[dict[str, str]]:
    """Return what is wrong with the node's identity and heartbeats: each has a code, and a message with the next step."""
    warnings = [] if row.phase == NodePhase.DECOMMISSIONED else [*_health_warnings(row), *_identity_warnings(row)]
    warnings += [_DOUBTS[each] for each in doubts]
    if clock_skew_seconds is not None and abs(clock_skew_seconds) > LARGEST_SKEW:
        words = f"{abs(clock_skew_seconds):.0f} s {'ahead' if clock_skew_seconds > 0 else 'behind'}"
        warnings.append(("clock_skew", f"The node's clock is {words}. Set it."))
    return [{"code": code, "message": message} for code, message in warnings]


def _health_warnings(row: Node) -> list[tuple[str, str]]:
    return [("degraded", in_full(row.degraded_reason, row.degraded_message))] if row.degraded_reason else []


def _identity_warnings(row: Node) -> list[tuple[str, str]]:
    warnings = []
    match Identity(row.identity):
        case Identity.UNSIGNED:
            warnings.append(("unsigned", f"Its messages are not signed. Join it: modfleet nodes add {row.name}"))
        case Identity.PENDING:
            warnings.append(("pending", f"It waits for a person to accept it: modfleet nodes accept {row.name}"))
        case Identity.REVOKED:
            warnings.append(("revoked", f"Its identity was revoked. It can join again: modfleet nodes add {row.name}"))
        case Identity.SIGNED:
            pass
    if row.duplicate:
        warnings.append(("duplicate_agent", "Two agents with its key are heard. Stop one of them, or revoke the node."))
    return warnings


_DOUBTS = {
    "counter": (
        "implausible_counter",
        "The counter in its messages is impossible, so they are ignored. Restart the agent.",
    ),
    "generations": (
        "implausible_generations",
        "Its journal has impossible generations, which are ignored. Check the journal on the node.",
    ),
    "changes": (
        "changes_too_often",
        f"It changes too often: one change in {SECONDS / 60:.0f} minutes is recorded. Check if another agent uses its name.",
    ),
    "contact": (
        "changes_too_often",
        f"It falls silent too often: it may count as online for {SECONDS / 60:.0f} minutes without a heartbeat. Check its network.",
    ),
}
