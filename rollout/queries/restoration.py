"""What a rollback of a rollout restores."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import OuterRef, Subquery

from rollout.domain.placement.rollback import newer_rollout, to_undo
from rollout.domain.placement.state import PlacementState
from rollout.domain.rollout.events import LeftUnchanged
from rollout.messages import Phase
from rollout.models import Operation, Placement
from rollout.projections.nodes import decoded
from rollout.queries.nodes import decommissioned_nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """`nodes`: those that get back what they had, in the rollout's order. `unchanged`: those left as they are, by the
    newer rollout."""

    nodes: tuple[str, ...] = ()
    unchanged: tuple[LeftUnchanged, ...] = ()


def restoration_of(uid: str) -> Restoration:
    """Return what a rollback of the rollout would do now, as the deciders of its placements say. One query."""
    placement = Placement.objects.filter(node=OuterRef("node"), module_name=OuterRef("module_name"))
    rows = Operation.objects.filter(rollout=uid, touched=True, rollback=False).exclude(phase=Phase.SKIPPED, attempt=1)
    found = rows.exclude(node__in=decommissioned_nodes()).order_by("ordinal")
    states = found.annotate(state=Subquery(placement.values("state")[:1])).values_list("node", "generation", "state")
    return restoration(uid, ((node, generation, decoded(state)) for node, generation, state in states))


def restoration(uid: str, places: Iterable[tuple[str, int, PlacementState]]) -> Restoration:
    """Return the same for these nodes. Each comes with the generation of the rollout's operation and the state of its
    placement."""
    nodes: list[str] = []
    by_rollout: dict[str, list[str]] = {}
    for node, generation, state in places:
        if to_undo(state, uid) is not None:
            nodes.append(node)
        elif newer := newer_rollout(state, uid, generation):
            by_rollout.setdefault(newer, []).append(node)
    unchanged = tuple(LeftUnchanged(rollout=newer, nodes=tuple(names)) for newer, names in by_rollout.items())
    return Restoration(nodes=tuple(nodes), unchanged=unchanged)
