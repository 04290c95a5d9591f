"""The content of a rollout's page. The number of queries does not grow with the nodes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from console.rollouts.buttons import Button, conditions_of, offered
from console.rollouts.timeline import Entry, timeline_of
from eventstore import in_words, snapshot
from rollout.domain.reasons import WORDS
from rollout.domain.rollout.events import RolloutPhase
from rollout.messages import FINAL_PHASES, RUNNING_PHASES, Reason
from rollout.projections.attempts import BAD, attempt_in_words
from rollout.projections.rollout_document import document
from rollout.queries import explanations
from rollout.queries.freeze import freeze_document
from rollout.queries.operations import IN_PROGRESS, attempts_needing_attention, operation_rows
from rollout.queries.rollouts import decision_needed, newest_rollout_events, rollout_events, rollout_row

#: How many nodes are listed with their reasons, how many failed ones of them are shown at first, and how many events.
LISTED = 25
FIRST = 4
EVENTS = 80
#: Tiles show names up to this number of nodes.
NAMED_TILES = 40
#: The parts of a bar, in order. `rollout.css` has a colour for each.
PARTS = ("succeeded", "rolled_back", "running", "queued", "failed", "timed_out", "skipped", "canceled", "scheduled")
IN_WORDS: dict[RolloutPhase, str] = {
    RolloutPhase.PLANNED: "Planned",
    RolloutPhase.PENDING_APPROVAL: "Waiting for approval",
    RolloutPhase.SCHEDULED: "Scheduled",
    RolloutPhase.RUNNING: "Running",
    RolloutPhase.PAUSED: "Paused",
    RolloutPhase.ABORTING: "Aborting",
    RolloutPhase.ROLLING_BACK: "Rolling back",
    RolloutPhase.SUCCEEDED: "Succeeded",
    RolloutPhase.COMPLETED_WITH_FAILURES: "Completed with failures",
    RolloutPhase.FAILED: "Failed",
    RolloutPhase.ABORTED: "Aborted",
    RolloutPhase.ROLLED_BACK: "Rolled back",
    RolloutPhase.ROLLBACK_FAILED: "Rollback failed",
    RolloutPhase.SUPERSEDED: "Superseded",
    RolloutPhase.REJECTED: "Rejected",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a bar; `share` is in percent."""

    name: str
    label: str
    count: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """`number` is the API's, from 0; None for the nodes that were skipped from the start. `failed_before`: how many of its
    nodes failed before they were retried or undone."""

    number: int | None
    is_canary: bool
    phase: str
    total: int
    failed_before: int
    parts: Sequence[Part]
    tiles: SafeString
    soak_until: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedNode:
    """`attempt` is in words, empty if it is the only one. `is_over`: the attempt was retried or undone."""

    node: str
    phase: str
    attempt: str
    is_over: bool
    seconds: float | None
    message: str
    meaning: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Everything on a rollout's page that may change. `newest` is the position of its newest event."""

    uid: str
    title: str
    newest: int
    phase: str
    phase_in_words: str
    is_final: bool
    document: dict[str, Any]
    reason: str
    message: str
    why: dict[str, Any]
    #: The rollout waits for a person or for its start time, so the time left is unknown.
    is_waiting: bool
    freeze: dict[str, Any]
    parts: Sequence[Part]
    waves: Sequence[Wave]
    has_names: bool
    failing: Sequence[ListedNode]
    rest: Sequence[ListedNode]
    #: More nodes failed than are listed.
    more_failing: bool
    #: All listed nodes were retried or undone.
    failed_before: bool
    in_progress: Sequence[ListedNode]
    timeline: Sequence[Entry]
    may_act: bool
    buttons: Sequence[Button]
    needs_another: bool


@snapshot()
def live(uid: str, *, by: int, may_act: bool) -> Live:
    """Return the page's content for the user with the uid `by`. Raises: `RolloutNotFoundError`."""
    row = rollout_row(uid)
    shown, phase = document(row), RolloutPhase(row.phase)
    conditions = conditions_of(row, by=by)
    listed = attempts_needing_attention(uid, limit=LISTED)
    failing = [_listed(each) for each in listed if each.phase in BAD]
    in_progress = [_listed(each) for each in listed if each.phase in IN_PROGRESS]
    reason, explained = shown["reason"], explanations.of_rollout(uid).document
    freeze = freeze_document()
    return Live(
        uid=uid,
        title=capfirst(row.title),
        newest=row.position,
        phase=phase,
        phase_in_words=IN_WORDS[phase],
        is_final=phase.is_final,
        document=shown,
        reason=WORDS[Reason(reason)].meaning if reason else "",
        message="" if row.message.rstrip(".") in explained["summary"] else row.message,
        why=explained,
        is_waiting=freeze["frozen"] or phase == RolloutPhase.SCHEDULED or bool(decision_needed(row)),
        freeze=freeze,
        parts=parts_of(shown["progress"]),
        waves=_waves(uid, shown),
        has_names=shown["progress"]["total"] <= NAMED_TILES,
        failing=failing[:FIRST],
        rest=failing[FIRST:],
        more_failing=len(failing) == LISTED,
        failed_before=all(each.is_over for each in failing),
        in_progress=in_progress,
        timeline=_timeline(uid),
        may_act=may_act,
        buttons=offered(conditions) if may_act else (),
        needs_another=may_act and phase == RolloutPhase.PENDING_APPROVAL and conditions.is_own,
    )


def parts_of(counters: dict[str, Any]) -> list[Part]:
    """Return the parts of a bar for the counters that are not 0."""
    total = max(1, counters["total"])
    return [
        Part(
            name=name, label=name.replace("_", " "), count=counters[name], share=round(100 * counters[name] / total, 2)
        )
        for name in PARTS
        if counters.get(name)
    ]


def _timeline(uid: str) -> list[Entry]:
    """Return the newest entries, newest first, and always the start."""
    newest = newest_rollout_events(uid, limit=EVENTS)
    first = rollout_events(uid, after=0, limit=1)
    return timeline_of([*(each for each in first if each.position < newest[0].position), *newest])[::-1]


def _listed(row: Any) -> ListedNode:
    words = WORDS[Reason(row.reason)] if row.reason else None
    return ListedNode(
        node=row.node,
        phase=row.phase,
        attempt=attempt_in_words(row) if row.former or row.rollback or row.attempt > 1 else "",
        is_over=row.former,
        seconds=row.seconds,
        message=row.message,
        meaning=words.meaning if words else "",
        hint=words.hint if words else "",
    )


def _waves(uid: str, document: dict[str, Any]) -> list[Wave]:
    nodes: dict[int, list[_Tile]] = {}
    columns = ("wave", "node", "phase", "reason", "failed_before", "canceled_by")
    for wave, *columns_of_node in operation_rows(uid).values_list(*columns):
        nodes.setdefault(wave, []).append(_Tile(*columns_of_node))
    shown = [
        Wave(
            number=number,
            is_canary=number == 0 and document["strategy"]["canary"] not in {0, "0%"},
            phase=each["phase"],
            total=each["total"],
            failed_before=each.get("failed_before", 0),
            parts=parts_of(each),
            tiles=_tiles(nodes.get(number, ())),
            soak_until=each.get("soak_until", "") if each["phase"] == "soaking" else "",
        )
        for number, each in enumerate(document["waves"])
    ]
    if skipped := nodes.get(-1):
        tiles = _tiles(skipped)
        shown.append(
            Wave(
                number=None,
                is_canary=False,
                phase="skipped",
                total=len(skipped),
                failed_before=0,
                parts=(),
                tiles=tiles,
                soak_until="",
            )
        )
    return shown


class _Tile(NamedTuple):
    node: str
    phase: str
    reason: str
    failed_before: bool
    canceled_by: str


def _tiles(nodes: Iterable[_Tile]) -> SafeString:
    """Return a link for each node. A thousand of them must stay small, so the visible name is in the title only."""
    nodes_url = reverse("admin:rollout_node_changelist")
    return format_html_join(
        "\n",
        '<a href="{}{}/change/" class="{}" title="{}: {}"></a>',
        ((nodes_url, each.node, _classes(each), each.node, _outcome(each)) for each in nodes),
    )


def _classes(tile: _Tile) -> str:
    colour = "running" if tile.phase in RUNNING_PHASES else tile.phase
    return f"{colour} failed-before" if tile.failed_before and tile.phase not in BAD else colour


def _outcome(tile: _Tile) -> str:
    words = [tile.phase.replace("_", " ")]
    if tile.reason and tile.phase in FINAL_PHASES:
        words.append(tile.reason.replace("_", " "))
    if tile.canceled_by:
        words.append(f"by {in_words(tile.canceled_by)}")
    if tile.failed_before and tile.phase not in BAD:
        words.append("failed before")
    return ", ".join(words)
