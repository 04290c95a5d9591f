"""Timeouts of operations: overdue ones, and ones that have become impossible."""

from collections.abc import Callable, Sequence

from eventstore import append, database_now, retry_on_conflict
from rollout.domain.placement.commands import End, Skip
from rollout.messages import Phase, Reason
from rollout.models import Operation
from rollout.process.advance import advance_all
from rollout.process.placements import caused_changes, end_of_decommissioned
from rollout.queries.operations import operations_of_decommissioned_nodes, overdue_operations

#: The actor of timeouts.
CLOCK = "system:clock"
#: Operations that are ended in one transaction.
ENDED_AT_ONCE = 500


def end_overdue_operations() -> int:
    """Time out the released operations that did not end by their deadline. Return how many."""
    return _end_all(overdue_operations(database_now()), _timed_out)


def _timed_out(operation: Operation) -> End:
    words = f"{operation.node} did not finish before its deadline; its last phase was {operation.phase}."
    message = f"{words} {operation.message}" if operation.reason else words  # what its agent has noted
    return _end(operation, Phase.TIMED_OUT, Reason.NODE_DEADLINE, message)


def end_operations_of_decommissioned_nodes() -> int:
    """End the operations that were scheduled on a node while it was decommissioned. Return how many."""
    return _end_all(operations_of_decommissioned_nodes(), end_of_decommissioned)


def end_for_lack_of_a_build(operations: Sequence[tuple[Operation, Skip]]) -> int:
    """End operations whose node cannot get the build of the plan, each with its reason. Return how many."""
    skips = {operation.key: skip for operation, skip in operations}
    return _end_all([each for each, _ in operations], lambda each: _end(each, Phase.FAILED, *skips[each.key]))


def _end(operation: Operation, phase: Phase, reason: Reason, message: str) -> End:
    """Return the end of the attempt that the row shows: another attempt may have begun since."""
    return End(
        rollout=operation.rollout,
        node=operation.node,
        module_name=operation.module_name,
        phase=phase,
        reason=reason,
        message=message,
        attempt=operation.attempt,
    )


def _end_all(operations: Sequence[Operation], end: Callable[[Operation], End]) -> int:
    """End the operations; each end names the newest event of its operation as its cause."""

    @retry_on_conflict
    def append_ends(some: Sequence[Operation]) -> int:
        return len(append(*caused_changes((end(each), each.leads_to(CLOCK)) for each in some)))

    ended = sum(
        append_ends(operations[start : start + ENDED_AT_ONCE]) for start in range(0, len(operations), ENDED_AT_ONCE)
    )
    advance_all(dict.fromkeys(each.rollout for each in operations))
    return ended
