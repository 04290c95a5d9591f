"""Records drift: that it began, that it changed, and that it ended."""

from eventstore import Append, Batch, load_states
from rollout.domain.node.commands import EndDrift, RecordDrift
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import node_stream
from rollout.domain.node.state import NodePhase
from rollout.domain.placement.events import placement_stream
from rollout.messages import Reason
from rollout.models import NodeModule
from rollout.reconciliation.differences import Differences, place_of

#: The actor of everything that the reconciler does.
RECONCILER = "system:reconciler"


def drift_changes(differences: Differences) -> list[Append]:
    """Return what to append for drift that is new, has changed or is over."""
    over = [each for each in differences.open_drifts if each not in differences.still_differing]
    commands: list[RecordDrift | EndDrift] = [
        EndDrift(node=node, module_name=module_name, version=version) for node, module_name, version in over
    ]
    commands += [_record(each.row) for each in differences.drifted]
    states = load_states(sorted({node_stream(each.node) for each in commands}), NODE)
    changes = Batch()
    for command in commands:
        loaded = states[node_stream(command.node)]
        if loaded.state.phase == NodePhase.ONLINE:
            changes.decide(loaded, NODE, command, loaded.leads_to(RECONCILER))
    return changes.appends()


def _record(row: NodeModule) -> RecordDrift:
    return RecordDrift(
        node=row.node,
        module_name=row.module_name,
        version=row.version,
        desired=row.desired,
        observed=row.observed,
        content_sha256=row.content_sha256,
        reason=Reason.UNLOADED_BY_HAND if row.unloaded_by_hand else "",
    )


def drift_streams(differences: Differences) -> list[str]:
    """Return the placement streams that must not grow before the changes are appended: a release in between would
    record as drift what it puts right."""
    recorded = {(node, module_name) for node, module_name, _ in differences.open_drifts}
    return [
        placement_stream(*place) for place in sorted(recorded | {place_of(each.row) for each in differences.drifted})
    ]
