"""Takes in what agents say, in batches. The same message may come any number of times."""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
from django.db import InterfaceError, OperationalError, transaction

from eventstore.context import acting_as
from eventstore.store import append, database_now
from eventstore.transact import Batch, load_states, retry_on_conflict
from rollout import selectors
from rollout.advance import advance_all
from rollout.decider.node import NODE, RecordBeat, RecordContact, RecordInventory
from rollout.decider.placement import PLACEMENT, RecordReport
from rollout.events import node_stream, placement_stream
from rollout.messages import Beat, Report, from_json
from rollout.models import Liveness
from rollout.placements import forgetting, placement_changes

logger = logging.getLogger(__name__)

#: A report's message is cut there, characters.
LONGEST_MESSAGE = 4000

Message = TypeVar("Message", Report, Beat)
Result = TypeVar("Result")


def record_reports(bodies: Sequence[Any]) -> None:
    """Record a batch of reports in one transaction, then move their rollouts on. Reports may come more than once."""
    reports = [_tidy(report) for report in _parsed(Report, bodies)]
    came_back = [name for names in _all_or_each(_record, reports) for name in names]
    rollouts = [*(report.rollout for report in reports), *selectors.unfinished_rollouts_of(*came_back)]
    advance_all(dict.fromkeys(rollouts))


def _parsed(kind: type[Message], bodies: Iterable[Any]) -> list[Message]:
    """Those that can be understood; the others are logged."""
    found: list[Message] = []
    for body in bodies:
        try:
            found.append(from_json(kind, body))
        except msgspec.ValidationError as error:
            logger.warning("dropped a malformed %s: %s", kind.__name__, error)
    return found


def _tidy(report: Report) -> Report:
    """Its message without what no database stores, and no longer than anybody reads."""
    message = report.message.replace("\0", "").encode(errors="replace").decode()
    return replace(report, message=message[:LONGEST_MESSAGE])


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
    except Exception:
        if len(messages) == 1:
            logger.exception("dropped what cannot be recorded: %s", messages[0])
            return []
    return [result for message in messages for result in _all_or_each(record, [message])]


@retry_on_conflict
def _record(reports: Sequence[Report]) -> list[str]:
    """Names of the nodes that were taken for offline: a report is a sign of life too."""
    placements = load_states([placement_stream(each.node, each.module_name) for each in reports], PLACEMENT)
    names = sorted({each.node for each in reports})
    silent = selectors.silent_among(names)
    read = [*silent, *(each.node for each in reports if each.inventory is not None)]
    nodes = load_states([node_stream(name) for name in read], NODE)
    changes = Batch()
    for name in silent:
        changes.decide(nodes[node_stream(name)], NODE, RecordContact(node=name))
    for report in reports:
        if report.inventory is not None:
            command = RecordInventory(node=report.node, inventory=report.inventory)
            changes.decide(nodes[node_stream(report.node)], NODE, command)
        placement = placements[placement_stream(report.node, report.module_name)]
        changes.decide(placement, PLACEMENT, RecordReport(report=report))
    with transaction.atomic(), acting_as(_actor(reports)):
        append(*changes.appends())  # before the rows of Liveness are locked
        known = Liveness.objects.filter(node__in=names)
        list(known.order_by("node").select_for_update())  # in the order of names, as beats do
        known.update(last_seen=database_now())
    return silent


def _actor(messages: Sequence[Report | Beat]) -> str:
    names = {each.node for each in messages}
    return names.pop() if len(names) == 1 else "agents"


def record_beats(bodies: Sequence[Any]) -> bool:
    """Note when the nodes were last heard of; record as events only what has changed with them.

    Answers whether a node has started or changed, so that there may be something to send to it.
    """
    beats = _parsed(Beat, bodies)
    changed = [name for names in _all_or_each(_record_beats, beats) for name in names]
    advance_all(selectors.unfinished_rollouts_of(*changed))
    return bool(changed) or any(beat.hello for beat in beats)


@retry_on_conflict
def _record_beats(beats: Sequence[Beat]) -> list[str]:
    """Names of the nodes with which anything has changed. Two queries read what is known, however many there are."""
    newest = _newest(beats)
    known = selectors.known_nodes(newest)
    unlike = [beat for beat in newest.values() if not known[beat.node].is_as(beat)]
    states = load_states([node_stream(beat.node) for beat in unlike], NODE)
    changes = Batch()
    for beat in unlike:
        command = RecordBeat(node=beat.node, hello=beat.hello, profile=beat.profile, inventory=beat.inventory)
        changes.decide(states[node_stream(beat.node)], NODE, command)
    appends = changes.appends()
    # Logs of before `placement.forgotten.v1` forget nothing when a node leaves.
    rejoining = [beat.node for beat in unlike if beat.hello and known[beat.node].has_left]
    with transaction.atomic(), acting_as(_actor(unlike)):
        append(
            *appends, *(placement_changes(forgetting(*rejoining)) if rejoining else ())
        )  # before the rows of Liveness are locked
        _note_life(newest.values())
    changed = {each.stream for each in appends}
    return [name for name in newest if node_stream(name) in changed]


def _newest(beats: Sequence[Beat]) -> dict[str, Beat]:
    """The newest beat of each node, a hello if any was, in the order of names: two workers that write the same rows in
    different orders would wait for each other."""
    newest: dict[str, Beat] = {}
    for beat in sorted(beats, key=lambda each: (each.node, each.inventory.sequence)):
        said_hello = beat.node in newest and newest[beat.node].hello
        newest[beat.node] = replace(beat, hello=beat.hello or said_hello)
    return newest


def _note_life(beats: Collection[Beat]) -> None:
    now = database_now()
    for hello in (True, False):
        Liveness.objects.bulk_create(
            (
                Liveness(
                    node=beat.node,
                    last_seen=now,
                    hello_at=now if hello else None,
                    interval_seconds=beat.interval_seconds,
                    generations=beat.generations,
                )
                for beat in beats
                if beat.hello is hello
            ),
            update_conflicts=True,
            unique_fields=["node"],
            update_fields=["last_seen", "interval_seconds", "generations", *(["hello_at"] if hello else [])],
        )
