"""Judges by a heartbeat if its node's server can be used."""

from dataclasses import dataclass

from rollout.messages import Finding, FindingStatus, Heartbeat, WouldStart

#: Reasons besides those that agents send (`messages.ServerProblem`).
DOCTOR_FAILED = "doctor_failed"
NOT_EXAMINED = "not_examined"
WOULD_NOT_START = "would_not_start"

#: What `maintenance` says while an operation restarts the server.
RESTART = "restart"

#: A server restarts in a loop if its `run_id` has changed so many times within so many seconds.
LOOP_RESTARTS = 3
LOOP_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """Why nothing is released to a node. `reason` is a code, `message` has one or two sentences."""

    reason: str
    message: str


def degradation_of(heartbeat: Heartbeat, known: Degradation | None, *, joins: bool) -> Degradation | None:
    """Return why the node cannot be used, None if it can. `known`: what is recorded.

    A server that would not start again is changed only if that repairs its start. While the doctor examines the node, nothing changes, except that a node that `joins` gets nothing before the first
    result. An agent that sends no facts is not judged. Only failed checks count.
    """
    facts = heartbeat.facts
    if facts is None:
        return None
    if facts.maintenance == RESTART:
        return known  # its operation says how that ends
    if facts.problem:
        return Degradation(reason=facts.problem, message=facts.message)
    if facts.would_start == WouldStart.NO:
        words = f"The server would not start again: {facts.would_start_reason}"
        return Degradation(reason=WOULD_NOT_START, message=words)
    if heartbeat.doctor is None:
        not_examined = Degradation(reason=NOT_EXAMINED, message="Its agent has not finished its first checks.")
        return not_examined if joins else known
    failed = failed_checks(heartbeat.doctor)
    if not failed:
        return None
    checks = (
        f"These checks of its agent fail: {', '.join(failed)}."
        if failed[1:]
        else f"The check {failed[0]} of its agent fails."
    )
    return Degradation(reason=DOCTOR_FAILED, message=f"{checks} See: modfleet nodes show {heartbeat.node}")


def failed_checks(findings: tuple[Finding, ...]) -> list[str]:
    return [each.check for each in findings if each.status == FindingStatus.FAIL]
