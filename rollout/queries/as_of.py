"""Temporal queries: rollouts and nodes as they were, folded from the log up to a position as the projections fold them.

Nothing is written. `last_seen` and the place in a shard are null: heartbeats are not in the log.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from api.errors import InvalidRequestError
from eventstore import RecordedEvent, head, load_many, load_positions, position_at
from rollout.domain.errors import NodeNotFoundError, RolloutNotFoundError
from rollout.domain.node.events import node_stream
from rollout.domain.placement.events import placement_stream
from rollout.models import Operation, TimelineEntry
from rollout.projections.attempts import outcomes_in
from rollout.projections.counters import operation_key
from rollout.projections.nodes import NodeFold, NodeProjection
from rollout.projections.rollout_document import document
from rollout.projections.rollouts import RolloutFold
from rollout.queries.node_documents import detailed_node, node_document
from rollout.queries.nodes import node_row
from rollout.queries.operations import operation_document
from rollout.queries.rollouts import rollout_row

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def position_of(as_of: str) -> int:
    """Return the position that `as_of` means: a position itself, or a time and so the newest event recorded by then.

    A time in the future means now. Raises: `InvalidRequestError`.
    """
    if as_of.isascii() and as_of.isdigit() and len(as_of) < 19:
        newest = head()
        if int(as_of) > newest:
            raise InvalidRequestError(f"as_of: the log has no position {as_of} yet; the newest is {newest}.")
        return int(as_of)
    return position_at(_moment(as_of))


def _moment(text: str) -> datetime:
    try:
        if _RFC_3339.fullmatch(text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # such as the 30th of February, or a time before the year 1
    raise InvalidRequestError("as_of: must be a position of the log, or a time such as 2026-01-31T12:00:00Z.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRollout:
    """`position`: of its newest event by then. `operations`: in its order. `former`: earlier attempts."""

    document: dict[str, Any]
    position: int
    operations: tuple[Operation, ...]
    former: tuple[Operation, ...]


def rollout_as_of(uid: str, position: int) -> PastRollout:
    """Return the rollout as it was; three queries, however many nodes it has. Raises: `RolloutNotFoundError`."""
    started_position = rollout_row(uid).started_position
    if position < started_position:
        raise RolloutNotFoundError(
            f"At position {position} the rollout had not started: it started at {started_position}."
        )
    fold = RolloutFold({}, {})
    entries = TimelineEntry.objects.filter(rollout=uid, position__lte=position)
    for each in load_positions(entries.values("position")):
        fold.apply(each)
    row = fold.rollouts[uid]
    operations = sorted(fold.operations.values(), key=lambda operation: operation.ordinal)
    return PastRollout(
        document=document(row), position=row.position, operations=tuple(operations), former=tuple(fold.former)
    )


def operation_as_of(uid: str, node: str, position: int) -> dict[str, Any]:
    """Return the operation as JSON, as it was. Raises: `RolloutNotFoundError`, `NodeNotFoundError`."""
    key, past = operation_key(uid, node), rollout_as_of(uid, position)
    found = next((each for each in past.operations if each.key == key), None)
    if found is None:
        raise NodeNotFoundError(f"{node} was not part of this rollout at position {position}.")
    return operation_document(found, outcomes_in([found], past.former)[key])


def node_as_of(name: str, position: int) -> dict[str, Any]:
    """Return the node as JSON, as it was; the number of queries does not grow with the operations on it.

    Raises: `NodeNotFoundError`.
    """
    fold = NodeFold({}, [], [])
    for each in _events_of(name, position):
        fold.apply(each)
    if name not in fold.nodes:
        node_row(name)
        raise NodeNotFoundError(f"At position {position} {name} was not in the fleet: it joined later.")
    (row,) = fold.finished_nodes()
    modules, _ = fold.finished_modules()
    modules.sort(key=lambda each: (each.module_name, each.version))
    return detailed_node(node_document(row, modules, None, None), None)


def _events_of(name: str, position: int) -> Iterable[RecordedEvent]:
    """Return the events of this node that the projection of nodes folds, in order."""
    modules = Operation.objects.filter(node=name).order_by("module_name")
    names = modules.values_list("module_name", flat=True).distinct()
    streams = [node_stream(name), *(placement_stream(name, module_name) for module_name in names)]
    found = load_many(streams, up_to=position)
    events = [each for stream in found.values() for each in stream if isinstance(each.event, NodeProjection.handles)]
    return sorted(events, key=lambda each: each.position)
