"""Changes to the placements of many nodes at once: what a service appends beside the events of its own stream."""

from collections.abc import Iterable

from eventstore.store import Append
from eventstore.transact import Batch, load_states
from rollout.decider.placement import PLACEMENT, End, PlacementCommand, RecordReport
from rollout.events import placement_stream
from rollout.messages import Phase, Reason
from rollout.models import Operation


def placement_changes(commands: Iterable[PlacementCommand]) -> list[Append]:
    """What to append to the placement streams, in a constant number of queries per 500 of them."""
    by_stream = [(_stream_of(command), command) for command in commands]
    states = load_states([stream for stream, _ in by_stream], PLACEMENT)
    changes = Batch()
    for stream, command in by_stream:
        changes.decide(states[stream], PLACEMENT, command)
    return changes.appends()


def _stream_of(command: PlacementCommand) -> str:
    if isinstance(command, RecordReport):
        return placement_stream(command.report.node, command.report.module_name)
    return placement_stream(command.node, command.module_name)


def end_of_gone(operation: Operation) -> End:
    return End(
        rollout=operation.rollout,
        node=operation.node,
        module_name=operation.module_name,
        phase=Phase.CANCELED if operation.phase == Phase.SCHEDULED else Phase.FAILED,
        reason=Reason.NODE_DECOMMISSIONED,
        message=f"{operation.node} has left the fleet.",
    )
