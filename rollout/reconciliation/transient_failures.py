"""Repeats operations that failed for a transient reason, once the node has started again or come back."""

from rollout.messages import Action, Activation, Reason
from rollout.queries.rollouts import unfinished_rollouts
from rollout.reconciliation.desired_state import UndoneOperation
from rollout.reconciliation.differences import Differences
from rollout.reconciliation.needed_operation import Intent, NeededOperation

#: Reasons that may not hold any more once the node has started again or come back. All others are permanent: the
#: module, the node's configuration or a person must change first, and another attempt might hurt the server.
TRANSIENT = frozenset(
    {
        Reason.FETCH_FAILED,
        Reason.IO_ERROR,
        Reason.SERVER_UNREACHABLE,
        Reason.MODULE_BUSY,
        Reason.STALE_GENERATION,
        Reason.AGENT_ERROR,
        Reason.NODE_UNREACHABLE,
        Reason.NODE_DEADLINE,
        Reason.PROGRESS_DEADLINE,
    }
)
#: Reasons of an operation that was never released, and that say nothing against another one, which is judged again.
JUDGED_AGAIN = TRANSIENT | {
    Reason.NODE_DRAINING,
    Reason.INCOMPATIBLE_ARCH,
    Reason.INCOMPATIBLE_OS,
    Reason.MISSING_DEPENDENCY,
    Reason.COMMAND_NAME_TAKEN,
    Reason.NEWER_ROLLOUT,
    Reason.NODE_DECOMMISSIONED,
    # Other servers of its shard, and its own, may be ready now.
    Reason.UNMANAGED_REPLICA,
    Reason.UNMANAGED_MASTER,
    Reason.REPLICA_LACKS_MODULE,
    Reason.REPLICA_SILENT,
    Reason.MASTER_HAS_MODULE,
    Reason.SERVER_NOT_READY,
    Reason.BACKUP_RUNNING,
}
#: The node was not even asked: it need not start again first.
_NEVER_SENT = frozenset({Reason.PROGRESS_DEADLINE})


def repetitions(differences: Differences) -> list[NeededOperation]:
    """Return what did not succeed for a transient reason, on nodes that have started or come back since."""
    transient = [
        each for each in differences.undone if each.row.reason in TRANSIENT and not each.row.cancel_requested_at
    ]
    if not transient:
        return []
    # A rollout in progress may still wait for a person, who decides.
    undecided = set(unfinished_rollouts())
    return [
        NeededOperation(node=each.row.node, platforms=each.platforms, intent=_same_again(each))
        for each in transient
        if each.row.rollout not in undecided and (each.row.reason in _NEVER_SENT or _has_been_heard_since(each))
    ]


def _same_again(undone: UndoneOperation) -> Intent:
    row = undone.row
    return Intent(
        action=Action(row.action),
        module_name=row.module_name,
        version=row.version,
        activation=Activation(row.activation),
        undoes=row.undoes,
    )


def _has_been_heard_since(undone: UndoneOperation) -> bool:
    """Return True if the node has started or come back after the operation ended."""
    ended = undone.row.finished_at
    return undone.heard_at is not None and ended is not None and undone.heard_at > ended
