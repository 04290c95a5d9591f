"""Why a node is degraded, and what a person can do next."""

from collections.abc import Mapping

from rollout.domain.node.health import DOCTOR_FAILED, NOT_EXAMINED, WOULD_NOT_START
from rollout.domain.reasons import Words
from rollout.messages import ServerProblem

DEGRADED: Mapping[str, Words] = {
    ServerProblem.SERVER_UNREACHABLE: Words(
        "The agent cannot connect to the server.",
        "Start the server, or correct MODFLEET_SERVER_URL on the node: `modfleet agent doctor` there says what it has tried.",
    ),
    ServerProblem.SERVER_SILENT: Words(
        "The server has not answered two heartbeats in a row: a command or a module keeps it busy, or it hangs.",
        "Wait for the end of a long command: SLOWLOG GET names it afterwards. If the server hangs, only SIGKILL ends it; then "
        "start it again.",
    ),
    ServerProblem.SERVER_LOADING: Words(
        "The server reads its data.", "Wait. If it lasts, look for the progress in the server's log."
    ),
    ServerProblem.SERVER_REFUSES: Words(
        "The server refuses the agent, or answers in a way that the agent cannot read.",
        "Correct the user, the password or the rights that the message names: `modfleet agent doctor` on the node checks them.",
    ),
    ServerProblem.SERVER_TOO_OLD: Words("Agents need a newer server.", "Upgrade the server."),
    WOULD_NOT_START: Words(
        "The server's program would not start with all its modules.",
        "Correct what the message names, or remove or replace that module by a rollout or a rollback.",
    ),
    DOCTOR_FAILED: Words("A check of the agent fails.", "Do what `modfleet nodes show NAME` says next to the check."),
    NOT_EXAMINED: Words("The agent has not finished its first checks.", "Nothing to do: it takes some seconds."),
}


def in_full(reason: str, message: str) -> str:
    """Return why a node is degraded, and what a person can do. A newer agent may send a reason that is not known here."""
    hint = DEGRADED[reason].hint if reason in DEGRADED else ""
    return f"{reason}: {message} {hint}".strip(" :") if reason else ""
