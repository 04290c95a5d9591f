"""Reads at one moment how online nodes differ from their desired state."""

from dataclasses import dataclass

from rollout.models import NodeModule
from rollout.reconciliation import desired_state
from rollout.reconciliation.desired_state import DifferingModule, MissedTarget, UndoneOperation

#: A node and a module.
Place = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Of nodes that are online and not draining. No operation is unfinished where `missed`, `drifted` or `undone` names
    a node and a module.

    `missed`: targets of the cluster that no operation has brought. `drifted`: modules that differ after an operation
    that succeeded, or after none. `undone`: operations that did not succeed. `open_drifts`: node, module and version of
    each drift that is recorded and has not ended. `still_differing`: those of the recorded drifts that still differ, as
    recorded or in another way.
    """

    missed: dict[Place, MissedTarget]
    drifted: list[DifferingModule]
    undone: list[UndoneOperation]
    open_drifts: list[tuple[str, str, int]]
    still_differing: frozenset[tuple[str, str, int]]


def differences_of_fleet() -> Differences:
    """Four queries, however many nodes and modules there are."""
    missed = {(each.node, each.module_name): each for each in desired_state.missed_targets()}
    differing = desired_state.differing_modules()
    idle = [each for each in differing if not each.is_busy and place_of(each.row) not in missed]
    undone = desired_state.undone_operations()
    return Differences(
        missed=missed,
        drifted=[each for each in idle if not each.is_undone],
        undone=[each for each in undone if (each.row.node, each.row.module_name) not in missed],
        open_drifts=desired_state.open_drifts(),
        still_differing=frozenset(
            (each.row.node, each.row.module_name, each.row.version)
            for each in differing
            if each.row.drifted_at is not None
        ),
    )


def place_of(row: NodeModule) -> Place:
    return row.node, row.module_name
