"""The buttons of a rollout's page. They follow the decider's rules, so that no request from a button is refused."""

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


class Style(StrEnum):
    PRIMARY = ""
    PLAIN = "quiet"
    DANGER = "danger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """`ask` and `then` are the confirmation: the question and the effect. `remark`: the person must write one."""

    name: str
    label: str
    ask: str
    then: str
    done: str
    style: Style = Style.PLAIN
    remark: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The facts that decide which buttons are offered. `failed`: nodes that failed or timed out. `changed`: nodes that
    the rollout has changed, or may have changed."""

    phase: RolloutPhase
    is_gated: bool
    #: It waits until a person accepts that there is no rollback; and: there is none.
    waits_as_one_way: bool
    is_one_way: bool
    failed: int
    changed: int
    is_rollback: bool
    is_failback: bool
    #: The rollout waits for approval, but this person may not approve it.
    is_own: bool


APPROVE = Button(
    name="approve",
    label="Approve",
    ask="Approve this rollout?",
    then="The rollout can start. Your name and remark are recorded.",
    done="Approved. The rollout can start.",
    style=Style.PRIMARY,
    remark=True,
)
REJECT = Button(
    name="reject",
    label="Reject",
    ask="Reject this rollout?",
    then="The rollout ends and changes no node. Your name and remark are recorded.",
    done="Rejected. No node was changed.",
    style=Style.DANGER,
    remark=True,
)
PROMOTE = Button(
    name="promote",
    label="Promote",
    ask="Promote this rollout?",
    then="The rollout goes on: at a gate with the next wave. After a one-way change, it cannot be rolled back.",
    done="Promoted. The rollout goes on.",
    style=Style.PRIMARY,
)
RESUME = Button(
    name="resume",
    label="Resume",
    ask="Resume this rollout?",
    then="The rollout continues. Nodes that have failed so far no longer count towards the failure limit.",
    done="Resumed. The rollout continues.",
    style=Style.PRIMARY,
)
PAUSE = Button(
    name="pause",
    label="Pause",
    ask="Pause this rollout?",
    then="No new operations start. Operations in progress finish.",
    done="Paused. No new operations start.",
)
RETRY = Button(
    name="retry",
    label="Retry failed nodes",
    ask="Retry the failed nodes?",
    then="This rollout retries them. If it has ended, a new rollout does it.",
    done="The failed nodes are scheduled again.",
)
ROLL_BACK = Button(
    name="rollback",
    label="Roll back",
    ask="Roll back this rollout?",
    then="Every changed node is restored to what it had before. If this rollout has ended, a new rollout does it.",
    done="Rollback requested. Every changed node is restored to what it had before.",
    style=Style.DANGER,
)
ABORT = Button(
    name="abort",
    label="Abort",
    ask="Abort this rollout?",
    then="No new operations start. Operations in progress finish or are undone, as the strategy says. An aborted "
    "rollout cannot be resumed.",
    done="Abort requested. No new operations start.",
    style=Style.DANGER,
)
#: In display order.
BUTTONS = (APPROVE, PROMOTE, RESUME, PAUSE, RETRY, ROLL_BACK, REJECT, ABORT)
CANCEL = Button(
    name="cancel",
    label="Cancel",
    ask="Cancel on this node?",
    then="The rollout does nothing more on this node. If its operation is in progress, the node is asked to stop it.",
    done="The rollout does nothing more on this node.",
    style=Style.DANGER,
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


def offered(conditions: Conditions) -> list[Button]:
    """Return the buttons to show, in display order."""
    return [each for each in BUTTONS if _is_offered(each, conditions)]


def _is_offered(button: Button, conditions: Conditions) -> bool:
    is_allowed = conditions.phase in ALLOWED[_COMMANDS[button.name]]
    match button.name:
        case "approve":
            return is_allowed and not conditions.is_own
        case "promote":
            return is_allowed and (conditions.is_gated or conditions.waits_as_one_way)
        case "retry":
            return conditions.failed > 0 and (is_allowed or (conditions.phase in _ENDED and not conditions.is_failback))
        case "rollback":
            has_no_way_back = conditions.is_rollback or conditions.is_failback or conditions.is_one_way
            can_restore = conditions.changed > 0 and not has_no_way_back
            return can_restore and (is_allowed or conditions.phase in _ENDED)
        case _:
            return is_allowed


def conditions_of(row: Rollout, *, by: int) -> Conditions:
    """Return the conditions of the rollout for the user with the uid `by`."""
    return Conditions(
        phase=RolloutPhase(row.phase),
        is_gated=any(each["phase"] == WavePhase.GATED for each in row.waves),
        waits_as_one_way=bool(row.one_way and not row.one_way["promoted"]),
        is_one_way=row.one_way is not None,
        failed=row.failed + row.timed_out,
        changed=row.succeeded + row.failed + row.timed_out + row.queued + row.running,
        is_rollback=bool(row.rollback_of),
        is_failback=bool(row.failback_of),
        is_own=row.phase == RolloutPhase.PENDING_APPROVAL and not is_another_person(row, by),
    )


def press(button: Button, uid: str, *, by: int, remark: str = "") -> str:
    """Do what the button says, and return the uid of the rollout to show next. Raises: `RolloutError`."""
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
