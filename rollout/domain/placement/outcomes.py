"""What counts as a success: the phase and reason that a report ends an operation with."""

from rollout.domain.placement.events import OperationFinished, OperationReportedLate
from rollout.domain.placement.state import Operation
from rollout.messages import Action, Activation, Phase, Reason, Report

#: Reasons to skip an operation that are a success: the node is already as the operation was to leave it.
NOTHING_TO_DO = frozenset({Reason.ALREADY_INSTALLED, Reason.NOT_INSTALLED})
#: Reasons for which an agent leaves a node as it was, and that is no failure.
NOT_POSSIBLE = frozenset({Reason.FAILOVER_NOT_POSSIBLE, Reason.PRE_COMMAND_FAILED})


def reported_outcome(live: Operation, report: Report) -> tuple[Phase, Reason | None, str]:
    """Return the phase, the reason and the message that a final report gives to the live operation.

    The node's word counts, with two exceptions. A success fails if the inventory in the report contradicts it. A
    cancellation fails if it was not requested.
    """
    if report.phase == Phase.CANCELED and live.phase != Phase.CANCELING:
        message = f"{report.node} canceled the operation without a request. {report.message}".rstrip()
        return Phase.FAILED, Reason.AGENT_ERROR, message
    if _claims_success(report.phase, report.reason) and (found := _contradiction(live, report)):
        message = f"{report.node} reported a success, but {found}. {report.message}".rstrip()
        return Phase.FAILED, Reason.INVENTORY_MISMATCH, message
    return final_phase(live, report.phase, report.reason), report.reason, report.message


def final_phase(operation: Operation, reported: Phase, reason: Reason | None) -> Phase:
    """Return the phase of the operation for a final phase that its node reported, with its reason."""
    return Phase.ROLLED_BACK if operation.rollback and _claims_success(reported, reason) else reported


def _claims_success(reported: Phase, reason: Reason | None) -> bool:
    """Return True if the node says that it is as the operation was to leave it."""
    return reported == Phase.SUCCEEDED or (reported == Phase.SKIPPED and reason not in NOT_POSSIBLE)


def _contradiction(live: Operation, report: Report) -> str:
    """Return how the inventory in the report contradicts a success; empty if it does not."""
    if report.inventory is None or live.fails_back_to:
        return ""
    version = (report.module_name, live.version)
    found = next((each for each in report.inventory.modules if (each.module_name, each.version) == version), None)
    if live.action == Action.REMOVE:
        return "" if found is None else "still has the module"
    if found is None:
        return "does not have the module"
    if found.content_sha256 != live.content_sha256:
        return f"has other bytes: {found.content_sha256}"
    return "has not loaded the module" if live.activation == Activation.LOAD and not found.loaded else ""


def is_success(event: OperationFinished | OperationReportedLate) -> bool:
    """Return True if the node is as the operation was to leave it."""
    if event.phase == Phase.SKIPPED:  # the control plane skips nodes too, for other reasons
        return event.reason is None or event.reason in NOTHING_TO_DO
    return event.phase in {Phase.SUCCEEDED, Phase.ROLLED_BACK}


def answer_of(event: OperationFinished | OperationReportedLate) -> tuple[Phase, bool]:
    """Return the event's phase, and True for a success."""
    return event.phase, is_success(event)
