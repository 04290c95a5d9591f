"""What a person may ask of a rollout in its phase: the same rules as the decider's, so that no button is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from rollout.domain.rollout.commands import Abort, Approve, Pause, Promote, Reject, Resume, RetryNodes, RollBackAll
from rollout.domain.rollout.events import Origin, RolloutPhase, WavePhase
from rollout.domain.rollout.operator_commands import ALLOWED
from rollout.models import Rollout
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import (
    abort_rollout,
    approve_rollout,
    is_another_person,
    pause_rollout,
    promote_rollout,
    reject_rollout,
    resume_rollout,
    retry_rollout,
)


class Look(StrEnum):
    PRIMARY = ""
    PLAIN = "quiet"
    DANGER = "danger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """`ask` and `then` are the confirmation: the question, and what follows. `remark`: it has to be given one."""

    name: str
    label: str
    ask: str
    then: str
    done: str
    look: Look = Look.PLAIN
    remark: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What decides which buttons there are. `failed` counts nodes that failed or timed out, `changed` those that are
    not as they were."""

    phase: RolloutPhase
    is_gated: bool
    failed: int
    changed: int
    is_rollback: bool
    #: It waits for an approval, and not for this person's.
    is_own: bool


APPROVE = Button(
    name="approve",
    label="Approve",
    ask="Approve this rollout?",
    then="It starts. Your name and your remark are recorded.",
    done="Approved: it starts.",
    look=Look.PRIMARY,
    remark=True,
)
REJECT = Button(
    name="reject",
    label="Reject",
    ask="Reject this rollout?",
    then="It ends, and no node is touched. Your name and your remark are recorded.",
    done="Rejected: no node was touched.",
    look=Look.DANGER,
    remark=True,
)
PROMOTE = Button(
    name="promote",
    label="Promote",
    ask="Open the gate?",
    then="The next wave starts.",
    done="The gate is open: the next wave starts.",
    look=Look.PRIMARY,
)
RESUME = Button(
    name="resume",
    label="Resume",
    ask="Go on?",
    then="Nodes that have failed so far are accepted, and do not count any more.",
    done="It goes on.",
    look=Look.PRIMARY,
)
PAUSE = Button(
    name="pause",
    label="Pause",
    ask="Pause this rollout?",
    then="No further node is started. What runs goes on to its end.",
    done="Paused: no further node is started.",
)
RETRY = Button(
    name="retry",
    label="Retry failed nodes",
    ask="Try the nodes again that failed?",
    then="In this rollout, or in a new one if it has ended.",
    done="The nodes that failed are tried again.",
)
ROLL_BACK = Button(
    name="rollback",
    label="Roll back",
    ask="Roll back?",
    then="Every node that was changed gets back what it had before: in this rollout, or in a new one if it has ended.",
    done="Every node gets back what it had before.",
    look=Look.DANGER,
)
ABORT = Button(
    name="abort",
    label="Abort",
    ask="Abort this rollout?",
    then="No further node is started. What runs is finished or undone, as the strategy says. It cannot be resumed.",
    done="Aborted: no further node is started.",
    look=Look.DANGER,
)
#: In the order in which they are shown.
BUTTONS = (APPROVE, PROMOTE, RESUME, PAUSE, RETRY, ROLL_BACK, REJECT, ABORT)
CANCEL = Button(
    name="cancel",
    label="Cancel",
    ask="Cancel it on this node?",
    then="The rollout does nothing (more) on it, and the node gives up what it has in hand.",
    done="The rollout does nothing more on this node.",
    look=Look.DANGER,
)

_ENDED = frozenset(
    {
        RolloutPhase.SUCCEEDED,
        RolloutPhase.COMPLETED_WITH_FAILURES,
        RolloutPhase.FAILED,
        RolloutPhase.ABORTED,
        RolloutPhase.SUPERSEDED,
    }
)
_COMMANDS: dict[str, type] = {
    "approve": Approve,
    "promote": Promote,
    "resume": Resume,
    "pause": Pause,
    "retry": RetryNodes,
    "rollback": RollBackAll,
    "reject": Reject,
    "abort": Abort,
}


def offered(standing: Standing) -> list[Button]:
    return [each for each in BUTTONS if _is_offered(each, standing)]


def _is_offered(button: Button, standing: Standing) -> bool:
    is_allowed = standing.phase in ALLOWED[_COMMANDS[button.name]]
    match button.name:
        case "approve":
            return is_allowed and not standing.is_own
        case "promote":
            return is_allowed and standing.is_gated
        case "retry":
            return standing.failed > 0 and (is_allowed or standing.phase in _ENDED)
        case "rollback":
            has_to_give_back = standing.changed > 0 and not standing.is_rollback
            return has_to_give_back and (is_allowed or standing.phase in _ENDED)
        case _:
            return is_allowed


def standing_of(row: Rollout, *, by: int) -> Standing:
    """As the person sees it whose account has the uid `by`."""
    return Standing(
        phase=RolloutPhase(row.phase),
        is_gated=any(each["phase"] == WavePhase.GATED for each in row.waves),
        failed=row.failed + row.timed_out,
        changed=row.succeeded + row.failed + row.timed_out + row.queued + row.running,
        is_rollback=bool(row.rollback_of),
        is_own=row.phase == RolloutPhase.PENDING_APPROVAL and not is_another_person(row, by),
    )


def press(button: Button, uid: str, *, by: int, remark: str = "") -> str:
    """The rollout to look at then. Raises: `RolloutError`."""
    acts: dict[str, Callable[[], str | None]] = {
        "approve": lambda: approve_rollout(uid, by=by, remark=remark),
        "reject": lambda: reject_rollout(uid, remark=remark),
        "promote": lambda: promote_rollout(uid),
        "resume": lambda: resume_rollout(uid),
        "pause": lambda: pause_rollout(uid),
        "abort": lambda: abort_rollout(uid),
        "retry": lambda: retry_rollout(uid, origin=Origin.CONSOLE),
        "rollback": lambda: roll_back_rollout(uid, origin=Origin.CONSOLE),
    }
    return acts[button.name]() or uid


def button_of(name: str) -> Button | None:
    return next((each for each in BUTTONS if each.name == name), None)
