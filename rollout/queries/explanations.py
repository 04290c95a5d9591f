"""Explains rollouts and operations: reads what `rollout.domain.explanation` needs, in a constant number of queries."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from django.db.models import Case, Count, Max, Min, OuterRef, Q, QuerySet, Subquery, When
from django.db.models.aggregates import Aggregate

from api.fields import rfc3339
from eventstore import RecordedEvent, database_now, in_words, load, load_many, snapshot
from rollout.domain.explanation.facts import NodeFacts, Nodes, RolloutFacts, Why
from rollout.domain.explanation.node import explain_node
from rollout.domain.explanation.rollout import explain_rollout
from rollout.domain.node.degraded import in_full
from rollout.domain.node.state import NodePhase
from rollout.domain.placement.events import OperationCancelRequested, OperationFinished, placement_stream
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import (
    AbortRequested,
    NodesReleased,
    NodesRetried,
    RollbackRequested,
    RolloutPaused,
    RolloutRejected,
    RolloutStarted,
    rollout_stream,
)
from rollout.domain.rollout.one_way import what_is_one_way
from rollout.domain.rollout.state import RolloutState
from rollout.domain.server_health import in_lines
from rollout.domain.words import MOST_NAMED, counted, listed, sentence, with_cause
from rollout.messages import RUNNING_PHASES, Phase, Reason
from rollout.models import Node, NodeModule, Operation, Rollout
from rollout.projections.attempts import BAD, attempt_in_words, begun_in_words, earlier, outcomes_of
from rollout.queries.failbacks import failovers_of
from rollout.queries.failures import failures_of
from rollout.queries.freeze import freeze_in_words
from rollout.queries.harm import since_success
from rollout.queries.lost import lost_nodes
from rollout.queries.node_documents import drift_reason
from rollout.queries.operations import IN_PROGRESS, operation_row
from rollout.queries.rollouts import rollout_row
from rollout.queries.snapshot import snapshot_of

#: Most failed nodes that are shown with their events, and most events of the rollout itself.
FAILURES = 10
EVENTS = 200
#: Most stops and actions of people that are named, the newest ones.
NEWEST = 10
_VERBS = (RolloutPaused, AbortRequested, RollbackRequested, RolloutRejected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`document` is the answer without its `events`."""

    document: dict[str, Any]
    events: tuple[RecordedEvent, ...]


@snapshot()
def of_rollout(uid: str) -> Answer:
    """Explain what the rollout waits for, or how it ended. Raises: `RolloutNotFoundError`."""
    timeline = _timeline_of(uid)
    current = snapshot_of(uid, timeline.state, now=database_now())
    failed = _failed(uid)
    why = explain_rollout(timeline.state, timeline.started, current, _rollout_facts(timeline, failed))
    reason = timeline.state.reason
    failures = failures_of(uid)
    notes = [] if timeline.state.phase.is_final else _notes(uid)
    more = (*_skipped(uid), *notes, *_said_by_servers(failures), *_lost(timeline))
    why = replace(why, summary=" ".join((why.summary, *more)))
    document = {"uid": uid, "phase": timeline.state.phase, "reason": reason, **_document(why)}
    document |= {"notes": notes, "failures": failures, "masters": failovers_of(timeline.row)}
    own = [each for each in timeline.events if not _is_routine(each)]
    shown = [*own[:1], *own[1:][-EVENTS:], *_endings(uid, failed)]
    return Answer(document=document, events=tuple(sorted(shown, key=lambda each: each.position)))


@snapshot()
def of_node(uid: str, name: str) -> Answer:
    """Explain what the rollout's operation on the node waits for, or how it ended. Raises: `RolloutNotFoundError`, `NodeNotFoundError`."""
    row = operation_row(uid, name)
    timeline = _timeline_of(uid)
    current = snapshot_of(uid, timeline.state, now=database_now())
    stream = load(placement_stream(name, row.module_name))
    events = tuple(each for each in stream if getattr(each.event, "rollout", "") == uid)
    why = explain_node(
        timeline.state, timeline.started, current, _rollout_facts(timeline, ()), _node_facts(row, events)
    )
    failures = failures_of(uid, node=name)
    said = [f"Its server logged: {sentence(each['line'])}" for each in failures if each["line"]]
    since = "" if timeline.state.phase.is_final else since_success(row)
    numbers = [sentence("; ".join(in_lines(row.health)))] if row.health else []
    more = (*numbers, since, *said, *_of_operation(row), *_earlier(row), *_stopped(timeline, row))
    notes = [sentence(row.message)] if row.phase in RUNNING_PHASES and row.reason else []
    why = replace(why, summary=" ".join(filter(None, (why.summary, *more))))
    document = {"uid": uid, "node": name, "phase": row.phase, "reason": row.reason or None, **_document(why)}
    document |= {"notes": notes, "failures": failures}
    return Answer(document=document, events=events[-EVENTS:])


def _skipped(uid: str) -> list[str]:
    """Return how many nodes were skipped for each reason, with the first message, as sentences."""
    rows = Operation.objects.filter(rollout=uid, phase=Phase.SKIPPED).exclude(reason="")
    groups = rows.values("reason").annotate(count=Count("key"), message=Min("message")).order_by("-count", "reason")
    return [sentence(_skipped_in_words(**each)) for each in groups]


def _skipped_in_words(reason: str, count: int, message: str) -> str:
    who = f"{counted(count, 'node')} {'was' if count == 1 else 'were'} skipped"
    return with_cause(who, reason, f"for example, {message}" if message and count > 1 else message)


def _notes(uid: str) -> list[str]:
    """Return what has happened on nodes in progress, such as a server that hangs, as sentences; of the first nodes."""
    rows = Operation.objects.filter(rollout=uid, phase__in=RUNNING_PHASES).exclude(reason="").order_by("ordinal")
    return [f"{node}: {sentence(said)}" for node, said in rows.values_list("node", "message")[:MOST_NAMED]]


def _said_by_servers(failures: Sequence[dict[str, Any]]) -> list[str]:
    """Return how many nodes failed with the same words of their servers, as sentences."""
    return [sentence(each["text"]) for each in failures if each["line"]]


def _lost(timeline: "_Timeline") -> list[str]:
    """Return the state of the first lost nodes, as sentences; nothing after the end of the rollout."""
    if timeline.state.phase.is_final:
        return []
    return [f"{node}: {state}" for node, (_, state) in islice(lost_nodes(timeline.row).items(), MOST_NAMED)]


def _document(why: Why) -> dict[str, Any]:
    waits = [
        {"what": each.what, "text": each.text, "until": rfc3339(each.until) if each.until else None}
        for each in why.waits_for
    ]
    return {"summary": why.summary, "rule": {"id": why.rule, "text": why.rule_text}, "waits_for": waits}


# --- What is explained ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timeline:
    """A rollout folded from its own events. `since`: when it came to its phase and wave. `actor`: the last one who
    asked for a stop, else the starter."""

    row: Rollout
    state: RolloutState
    started: RolloutStarted
    events: tuple[RecordedEvent, ...]
    since: datetime
    actor: str

    @property
    def past(self) -> tuple[str, ...]:
        """Return what stopped it and what people did, in words and in order, without the stop that holds now."""
        holds = self.state.reason is not None or self.state.rejected
        stops = self.row.stops[:-1] if holds else self.row.stops
        entries = sorted([*stops, *self.row.actions], key=lambda each: each["at"])
        return tuple(each["text"] for each in entries[-NEWEST:])


def _timeline_of(uid: str) -> _Timeline:
    row = rollout_row(uid)
    events = load(rollout_stream(uid))
    state, since, actor = ROLLOUT.initial, events[0].recorded_at, events[0].shown_actor
    for each in events:
        before, state = state, ROLLOUT.evolve(state, each.event)
        if (before.phase, before.wave, before.wave_phase) != (state.phase, state.wave, state.wave_phase):
            since = each.recorded_at
        if isinstance(each.event, _VERBS):
            actor = each.shown_actor
    started: RolloutStarted = events[0].event
    return _Timeline(row=row, state=state, started=started, events=events, since=since, actor=actor)


def _is_routine(recorded: RecordedEvent) -> bool:
    """Return True if the event only releases or retries nodes: there may be one for each node."""
    event = recorded.event
    return isinstance(event, NodesReleased) or (isinstance(event, NodesRetried) and event.automatic)


def _failed(uid: str) -> Sequence[Operation]:
    """Return the first attempts that failed, also those that were retried or undone; then those that a newer rollout
    took over; then those that a person canceled."""
    canceled, taken_over = ~Q(canceled_by=""), Q(phase=Phase.CANCELED, reason=Reason.NEWER_ROLLOUT)
    rows = Operation.attempts.filter(Q(phase__in=BAD) | taken_over | canceled, rollout=uid)
    rank = Case(When(taken_over, then=1), When(canceled, then=2), default=0)
    order = (rank, "finished_at", "ordinal", "generation", "attempt")
    return list(rows.order_by(*order)[:FAILURES])


def _endings(uid: str, rows: Sequence[Operation]) -> list[RecordedEvent]:
    """Return the events by which they ended, and by which nodes were asked to cancel them; in one query."""
    streams = load_many(placement_stream(each.node, each.module_name) for each in rows)
    return [each for stream in streams.values() for each in stream if _is_ending(each, uid)]


def _is_ending(recorded: RecordedEvent, uid: str) -> bool:
    event = recorded.event
    if getattr(event, "rollout", "") != uid:
        return False
    is_end = isinstance(event, OperationFinished) and event.phase in {*BAD, Phase.CANCELED}
    return is_end or isinstance(event, OperationCancelRequested)


def _rollout_facts(timeline: _Timeline, failed: Sequence[Operation]) -> RolloutFacts:
    uid, state = timeline.started.rollout, timeline.state
    facts = RolloutFacts(
        since=timeline.since,
        actor=timeline.actor,
        before=timeline.past,
        failed=_in_words(failed),
        related=(*_one_way(state, timeline.started), *_related(timeline.row)),
    )
    if state.phase.is_final:
        return facts
    rows = Operation.objects.filter(rollout=uid)
    nodes = Node.objects.filter(name=OuterRef("node"))
    with_phase = rows.annotate(node_phase=Subquery(nodes.values("phase")))
    waiting = with_phase.filter(phase=Phase.SCHEDULED)
    if not state.restoring:
        waiting = waiting.filter(wave__lte=state.open_wave)
    return replace(
        facts,
        in_progress=_group(rows.filter(phase__in=IN_PROGRESS), Max("deadline_at")),
        silent=_group(with_phase.filter(phase__in=IN_PROGRESS, node_phase=NodePhase.OFFLINE)),
        offline=_group(waiting.filter(node_phase=NodePhase.OFFLINE)),
        degraded=_group(waiting.filter(node_phase=NodePhase.DEGRADED)),
        draining=_group(waiting.filter(node_phase=NodePhase.DRAINING)),
        behind=_group(waiting.filter(behind=True)),
        backing_off=_group(waiting.filter(ready_at__gt=database_now()), Min("ready_at")),
        retried=_group(waiting.filter(attempt__gt=1)),
        needs=timeline.started.needs,
        frozen=freeze_in_words(),
    )


def _group(rows: QuerySet[Operation], until: Aggregate | None = None) -> Nodes:
    found = rows.aggregate(count=Count("key"), **({} if until is None else {"until": until}))
    names = rows.order_by("ordinal").values_list("node", flat=True)[:MOST_NAMED] if found["count"] else ()
    return Nodes(count=found["count"], names=tuple(names), until=found.get("until"))


def _in_words(failed: Sequence[Operation]) -> tuple[str, ...]:
    """Return the failures in words, without those that a person canceled: people's actions name these."""
    rows = [each for each in failed if not each.canceled_by]
    return tuple(
        ": ".join(filter(None, (_named(each), each.reason or each.phase, each.message))) for each in rows[:MOST_NAMED]
    )


def _named(row: Operation) -> str:
    return f"{row.node}, {attempt_in_words(row)}" if row.former or row.rollback or row.attempt > 1 else row.node


def _one_way(state: RolloutState, started: RolloutStarted) -> Iterator[str]:
    """Yield why there is no rollback, unless the rollout waits because of that: the wait says it."""
    if state.one_way and (state.phase.is_final or not state.waits_for_promotion):
        yield f"There is no rollback. {what_is_one_way(state.one_way, started.version)}"


def _related(row: Rollout) -> Iterator[str]:
    """Yield sentences about the rollouts that it retries, rolls back or follows, that retry, roll back or follow it, and about the nodes that
    its rollback left unchanged."""
    if row.retry_of:
        yield f"It retries the failed nodes of rollout {row.retry_of}."
    if row.rollback_of:
        yield f"It rolls back rollout {row.rollback_of}."
    if row.failback_of:
        yield f"It makes the former masters of rollout {row.failback_of} the masters again."
    for retry in row.retried_by:
        yield f"Rollout {retry} retries its failed nodes."
    if row.rolled_back_by:
        yield f"Rollout {row.rolled_back_by} rolls it back."
    if row.failed_back_by:
        yield f"Rollout {row.failed_back_by} makes its former masters the masters again."
    if row.left_alone.get("count"):
        yield row.left_alone["text"]


def _of_operation(row: Operation) -> Iterator[str]:
    if begun := begun_in_words(row):
        is_undo = row.rollback and row.attempt == 1
        what = f"The undo, {row.action} {row.module_name} {row.version}," if is_undo else "It"
        yield f"{what} was {begun}."
    if row.canceled_by and row.finished_at is None:
        yield f"The node was asked to cancel it by {in_words(row.canceled_by)}."
    if row.late:
        yield f"The node reported late: {row.late}."


def _earlier(row: Operation) -> list[str]:
    """Return how the attempts before this one ended."""
    former = earlier(outcomes_of([row])[row.key], has_ended=row.finished_at is not None)
    return [f"Earlier: {listed([each['text'] for each in former])}"] if former else []


def _stopped(timeline: _Timeline, row: Operation) -> list[str]:
    """Return what stopped the rollout, if the operation was undone or canceled because of that."""
    stops = [each["text"] for each in timeline.row.stops]
    is_affected = stops and (row.rollback or row.phase == Phase.CANCELED)
    return [f"The rollout: {listed(stops)}"] if is_affected else []


def _node_facts(row: Operation, events: Sequence[RecordedEvent]) -> NodeFacts:
    node = Node.objects.filter(name=row.node).first()
    older = Operation.objects.filter(
        node=row.node, module_name=row.module_name, generation__lt=row.generation, finished_at__isnull=True
    )
    module = NodeModule.objects.filter(node=row.node, module_name=row.module_name, version=row.version).first()
    return NodeFacts(
        name=row.node,
        node_phase=NodePhase.DECOMMISSIONED if node is None else NodePhase(node.phase),
        node_problem="" if node is None else in_full(node.degraded_reason, node.degraded_message),
        wave=row.wave,
        phase=Phase(row.phase),
        since=row.finished_at or events[-1].recorded_at,
        reason=Reason(row.reason) if row.reason else None,
        message=row.message,
        behind=older.order_by("generation").values_list("rollout", flat=True).first() or "" if row.behind else "",
        ready_at=row.ready_at,
        deadline_at=row.deadline_at,
        touched=row.touched,
        canceled_by=row.canceled_by,
        drift_reason=drift_reason(module) if module else None,
    )
