"""Takes in what agents say, in batches. The same message may come any number of times.

What a message says of its own order is checked against what was heard of its node (`decider.node.Heard`), and what
cannot be is not believed: a bad node harms what is known of itself, and that for three heartbeats at most. What
changes too often is recorded now and then (`decider.pace`).
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F

from eventstore import (
    Append,
    Batch,
    Metadata,
    append,
    begun_by,
    database_now,
    load_state,
    load_states,
    retry_on_conflict,
)
from rollout.domain.node.commands import RecordContact, RecordHeartbeat, RecordInventory
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import actor_of, node_stream
from rollout.domain.node.inventory_order import InventoryOrder, is_earlier
from rollout.domain.node.pace import Change, full_after, is_limited
from rollout.domain.placement.commands import RecordReport, RejectReport
from rollout.domain.placement.decider import PLACEMENT
from rollout.domain.placement.events import placement_stream
from rollout.domain.placement.reports import refusal
from rollout.domain.placement.scheduling import LARGEST_GENERATION
from rollout.messages import HEARTBEATS, REPORTS, Heartbeat, Inventory, Report, from_json
from rollout.models import DroppedMessages, Liveness, Operation
from rollout.process.advance import advance_all
from rollout.process.placements import caused_changes, forgetting
from rollout.process.timeouts import is_silent
from rollout.projections.counters import operation_key
from rollout.queries.nodes import KnownNode, known_nodes, silent_among
from rollout.queries.operations import operations_by_key
from rollout.queries.rollouts import unfinished_rollouts_of
from rollout.transport import DROPPED

logger = logging.getLogger(__name__)

#: A report's message is cut there, characters.
LONGEST_MESSAGE = 4000
#: So is the reason why one could not be recorded.
LONGEST_REASON = 500

Message = TypeVar("Message", Report, Heartbeat)
Result = TypeVar("Result")
_QUEUES: Mapping[type, str] = {Report: REPORTS, Heartbeat: HEARTBEATS}


def record_reports(bodies: Sequence[Any]) -> None:
    """Record a batch of reports in one transaction, then move their rollouts on. Reports may come more than once."""
    reports = [_tidy(report) for report in _parsed(Report, bodies)]
    concerned = [uid for uids in _all_or_each(_record, reports) for uid in uids]
    advance_all(dict.fromkeys(concerned))


def _parsed(kind: type[Message], bodies: Iterable[Any]) -> list[Message]:
    """Those that can be understood; the others are logged."""
    found: list[Message] = []
    for body in bodies:
        try:
            found.append(from_json(kind, body))
        except msgspec.ValidationError as error:
            DROPPED.note(_QUEUES[kind], "malformed", error)
    return found


def record_dropped() -> None:
    """Add to the counters what this process has dropped since the last call."""
    counts = DROPPED.take()
    if not counts:
        return
    try:
        with transaction.atomic():
            for (queue, reason), count in sorted(counts.items()):
                key = f"{queue}:{reason}"
                row = DroppedMessages(key=key, queue=queue, reason=reason, count=0)
                DroppedMessages.objects.bulk_create([row], ignore_conflicts=True)
                DroppedMessages.objects.filter(key=key).update(count=F("count") + count)
    except BaseException:
        DROPPED.put_back(counts)
        raise


def _tidy(report: Report) -> Report:
    """Its message without what no database stores, and no longer than anybody reads."""
    return replace(report, message=_storable(report.message)[:LONGEST_MESSAGE])


def _storable(text: str) -> str:
    return text.replace("\0", "").encode(errors="replace").decode()


def _all_or_each(record: Callable[[Sequence[Message]], Result], messages: Sequence[Message]) -> list[Result]:
    """Record the messages together; if that fails one by one, so that a bad one keeps no other from being recorded.

    Raises: what says that the database is away; nothing of the batch may be acknowledged then.
    """
    if not messages:
        return []
    try:
        return [record(messages)]
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        if len(messages) == 1:
            logger.exception("dropped what cannot be recorded: %s", messages[0])
            DROPPED.note(_QUEUES[type(messages[0])], "unrecorded", messages[0].node)
            if isinstance(messages[0], Report):
                _try_to_reject(messages[0], error)
            return []
    return [result for message in messages for result in _all_or_each(record, [message])]


def _try_to_reject(report: Report, error: Exception) -> None:
    """Record that the report was rejected, and why. Raises: as `_all_or_each`."""
    why = _storable(f"It could not be recorded: {type(error).__name__}: {error}")[:LONGEST_REASON]
    try:
        _reject(RejectReport(report=report, why=why))
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        logger.exception("not even recorded as rejected: %s", report)


@retry_on_conflict
def _reject(command: RejectReport) -> None:
    report = command.report
    loaded = load_state(placement_stream(report.node, report.module_name), PLACEMENT)
    operation = _operation_of(report, _operations_of([report]))
    append(loaded.append(PLACEMENT.decide(loaded.state, command), _caused_by(operation, report)))


#: An order that was wrong holds for three intervals of the node, as it gave them, and no longer than this, seconds.
LONGEST_ORDER_SECONDS = 180.0


class _Order:
    """What was heard of some nodes, up to the message that is looked at."""

    def __init__(self, queue: str, names: Iterable[str]) -> None:
        self.now = database_now()
        #: By node, where the batch has said anything new.
        self.heard: dict[str, InventoryOrder] = {}
        #: Nodes that counted further than they can have.
        self.doubted: set[str] = set()
        #: Why something is not taken, and words about it.
        self._refused: list[tuple[str, str]] = []
        self._queue = queue
        self._rows = {row.node: row for row in Liveness.objects.filter(node__in=names)}
        self._paces: dict[str, dict[str, float]] = {name: dict(row.pace) for name, row in self._rows.items()}
        #: Nodes of which a change is recorded.
        self._changed: set[str] = set()

    def takes(self, node: str, said: Inventory, *, hello: bool = False) -> bool:
        """Whether `said` is newer than all that was heard of the node so far. It counts as heard then."""
        row = self._rows.get(node)
        before = self.heard.get(node) or _heard(row)
        silent = node not in self.heard and (row is None or is_silent(row, self.now, at_most=LONGEST_ORDER_SECONDS))
        after = before.after(said, hello=hello, silent=silent)
        if after is not None:
            self.heard[node] = after
            return True
        if not before.is_plausible(said):
            self.doubted.add(node)
            self.refuse("implausible", f"{node} counted {said.counter} after {before.counter}")
        return False

    def has_row(self, node: str) -> bool:
        return node in self._rows

    def holds(self, node: str, change: Change) -> bool:
        """Whether the node has changed so often that this is not recorded yet."""
        return is_limited(self.pace(node).get(change, 0.0), self.now.timestamp())

    def note(self, node: str, change: Change) -> None:
        """Count a change that is recorded."""
        self._changed.add(node)
        if not self.holds(node, change):
            pace = self._paces.setdefault(node, {})
            pace[change] = full_after(pace.get(change, 0.0), self.now.timestamp())

    def reread(self, rows: Iterable[Liveness]) -> None:
        """Take over what others have counted since, of rows that are locked. Of a node of which a change is recorded
        nobody has: the append would have been refused."""
        self._paces |= {row.node: dict(row.pace) for row in rows if row.node not in self._changed}

    def pace(self, node: str) -> Mapping[str, float]:
        return self._paces.get(node, {})

    def refuse(self, reason: str, words: str) -> None:
        self._refused.append((reason, words))

    def note_refused(self) -> None:
        """Count what was not taken. To be called once, when the rest is recorded: an attempt may be made again."""
        for reason, words in self._refused:
            DROPPED.note(self._queue, reason, words)


def _heard(row: Liveness | None) -> InventoryOrder:
    return (
        InventoryOrder(incarnation=row.incarnation, counter=row.counter, former=tuple(row.former))
        if row
        else InventoryOrder()
    )


@retry_on_conflict
def _record(reports: Sequence[Report]) -> list[str]:
    """Uids of the rollouts that the reports are about, and of those with work for nodes that were taken for offline: a
    report is a sign of life too.

    The inventory of a report that is not recorded is left to the next heartbeat: a report may be repeated without end.
    """
    placements = load_states([placement_stream(each.node, each.module_name) for each in reports], PLACEMENT)
    names = sorted({each.node for each in reports})
    order = _Order(REPORTS, names)
    silent = silent_among(names)
    read = [*silent, *(each.node for each in reports if each.inventory is not None)]
    nodes = load_states([node_stream(name) for name in read], NODE)
    answered = _operations_of(reports)
    of_nodes, of_placements = Batch(), Batch()
    for name in silent:
        order.note(name, Change.CONTACT)
        of_nodes.decide(nodes[node_stream(name)], NODE, RecordContact(node=name), begun_by(actor_of(name)))
    for report in reports:
        operation = _operation_of(report, answered)
        placement = placements[placement_stream(report.node, report.module_name)]
        if why := refusal(placement.state, report):
            order.refuse("rejected", f"{report.node} on {report.module_name}: {why}")
        is_recorded = of_placements.decide(
            placement, PLACEMENT, RecordReport(report=report), _caused_by(operation, report)
        )
        if report.inventory is not None and order.takes(report.node, report.inventory) and is_recorded:
            inventory = RecordInventory(node=report.node, inventory=report.inventory)
            # Once the operation has ended, the node says of its own what it has.
            awaited = None if operation is None or operation.finished_at else operation
            of_nodes.decide(nodes[node_stream(report.node)], NODE, inventory, _caused_by(awaited, report))
    with transaction.atomic():
        # Before the rows of Liveness are locked.
        append(*of_nodes.appends(), *of_placements.appends())
        _note_contact(names, order)
    order.note_refused()
    return [*(each.rollout for each in answered.values()), *unfinished_rollouts_of(*silent)]


def _operations_of(reports: Iterable[Report]) -> dict[str, Operation]:
    """The operations that the reports name, by key: none for what was never asked of the node."""
    return operations_by_key(operation_key(each.rollout, each.node) for each in reports)


def _operation_of(report: Report, operations: Mapping[str, Operation]) -> Operation | None:
    operation = operations.get(operation_key(report.rollout, report.node))
    return operation if operation is not None and operation.module_name == report.module_name else None


def _caused_by(operation: Operation | None, report: Report) -> Metadata:
    """Metadata of what the node says because of the operation, or of its own. What the message says of its cause is not
    asked, because the log knows what the node was told."""
    actor = actor_of(report.node)
    return begun_by(actor) if operation is None else operation.leads_to(actor)


def _note_contact(names: Sequence[str], order: _Order) -> None:
    rows = _locked(names)
    order.reread(rows)
    for row in rows:
        row.last_seen, row.pace = order.now, order.pace(row.node)
        said = order.heard.get(row.node)
        if said is not None and not (said.incarnation == row.incarnation and said.counter < row.counter):
            row.incarnation, row.counter, row.former = said.incarnation, said.counter, list(said.former)
    Liveness.objects.bulk_update(rows, ["last_seen", "incarnation", "counter", "former", "pace"])


def _locked(names: Iterable[str]) -> list[Liveness]:
    """The rows of the nodes, locked to the end of the transaction, always in the same order: two workers that lock the
    same rows in different orders would wait for each other."""
    return list(Liveness.objects.filter(node__in=names).order_by("node").select_for_update())


def record_heartbeats(bodies: Sequence[Any]) -> bool:
    """Note when the nodes were last heard of; record as events only what has changed with them.

    Answers whether a node has started or changed, so that there may be something to send to it.
    """
    heartbeats = _parsed(Heartbeat, bodies)
    changed = [name for names in _all_or_each(_record_heartbeats, heartbeats) for name in names]
    advance_all(unfinished_rollouts_of(*changed))
    return bool(changed) or any(heartbeat.hello for heartbeat in heartbeats)


@retry_on_conflict
def _record_heartbeats(heartbeats: Sequence[Heartbeat]) -> list[str]:
    """Names of the nodes with which anything new is recorded. Three queries read what is known, however many there are."""
    order = _Order(HEARTBEATS, {heartbeat.node for heartbeat in heartbeats})
    newest = _newest(heartbeats, order)
    known = known_nodes(newest)
    news = [_news(known[name], heartbeat, order) for name, heartbeat in newest.items()]
    unlike = [each for each in news if each.changes or each.lost]
    states = load_states([node_stream(each.node) for each in unlike], NODE)
    changes = Batch()
    for command in unlike:
        changes.decide(states[node_stream(command.node)], NODE, command, begun_by(actor_of(command.node)))
    appends = changes.appends()
    # Logs of before `placement.forgotten.v1` forget nothing when a node leaves.
    rejoining = [each.node for each in unlike if each.hello and known[each.node].has_left]
    with transaction.atomic():
        # Before the rows of Liveness are locked.
        append(*appends, *(_forgotten(rejoining, appends) if rejoining else ()))
        _note_life(newest.values(), order)
    order.note_refused()
    changed = {each.stream for each in appends}
    return [name for name in newest if node_stream(name) in changed]


def _news(known: KnownNode, heartbeat: Heartbeat, order: _Order) -> RecordHeartbeat:
    """What is to be recorded of the heartbeat: what is not known, without what is held back."""
    changes, lost = known.changes(heartbeat), frozenset[tuple[str, int]]()
    if known.is_member:
        held = {each for each in changes if each != Change.CONTACT and order.holds(heartbeat.node, each)}
        if Change.INVENTORY in held:
            lost = known.lost(heartbeat.inventory)
        changes -= held
        for each in changes:
            order.note(heartbeat.node, each)
    return RecordHeartbeat(
        node=heartbeat.node,
        hello=heartbeat.hello,
        profile=heartbeat.profile,
        inventory=heartbeat.inventory,
        changes=changes,
        lost=lost,
    )


def _forgotten(names: Sequence[str], joins: Sequence[Append]) -> list[Append]:
    """What nodes forget because they have joined again."""
    joined = {each.stream: each.leads_to for each in joins}
    return caused_changes(
        (each, joined[node_stream(each.node)]) for each in forgetting(*names) if node_stream(each.node) in joined
    )


def _newest(heartbeats: Sequence[Heartbeat], order: _Order) -> dict[str, Heartbeat]:
    """The newest heartbeat of each node, a hello if any was, in the order of names. Nodes that said nothing new are left
    out."""
    newest: dict[str, Heartbeat] = {}
    for heartbeat in heartbeats:
        if not order.takes(heartbeat.node, heartbeat.inventory, hello=heartbeat.hello):
            continue
        before = newest.get(heartbeat.node, heartbeat)
        latest = before if is_earlier(heartbeat.inventory, before.inventory.sequence) else heartbeat
        newest[heartbeat.node] = replace(latest, hello=heartbeat.hello or before.hello)
    return dict(sorted(newest.items()))


def _note_life(heartbeats: Collection[Heartbeat], order: _Order) -> None:
    """Rows that are missing are made first, in the order of `heartbeats`, which is that of names: what inserts the same rows in
    another order would wait for this one, and this one for it."""
    if missing := [heartbeat for heartbeat in heartbeats if not order.has_row(heartbeat.node)]:
        Liveness.objects.bulk_create((_life(heartbeat, order) for heartbeat in missing), ignore_conflicts=True)
    order.reread(_locked({heartbeat.node for heartbeat in heartbeats} | order.doubted))
    for hello in (True, False):
        Liveness.objects.bulk_create(
            (_life(heartbeat, order) for heartbeat in heartbeats if heartbeat.hello is hello),
            update_conflicts=True,
            unique_fields=["node"],
            update_fields=[*_SAID, *(["hello_at"] if hello else [])],
        )
    if order.doubted:
        Liveness.objects.filter(node__in=order.doubted).update(doubts=["counter"])


_SAID = (
    "last_seen",
    "interval_seconds",
    "generations",
    "incarnation",
    "counter",
    "former",
    "clock_skew_seconds",
    "doubts",
    "pace",
)


def _life(heartbeat: Heartbeat, order: _Order) -> Liveness:
    heard = order.heard[heartbeat.node]
    generations = {name: number for name, number in heartbeat.generations.items() if number <= LARGEST_GENERATION}
    doubts = [] if len(generations) == len(heartbeat.generations) else ["generations"]
    held = {each for each in Change if order.holds(heartbeat.node, each)}
    doubts += ["contact"] if Change.CONTACT in held else []
    doubts += ["changes"] if held - {Change.CONTACT} else []
    return Liveness(
        node=heartbeat.node,
        last_seen=order.now,
        hello_at=order.now if heartbeat.hello else None,
        interval_seconds=heartbeat.interval_seconds,
        generations=generations,
        incarnation=heard.incarnation,
        counter=heard.counter,
        former=list(heard.former),
        clock_skew_seconds=None if heartbeat.sent_at is None else heartbeat.sent_at - order.now.timestamp(),
        doubts=doubts,
        pace=order.pace(heartbeat.node),
    )
