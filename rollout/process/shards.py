"""Keeps the rows of `ShardMember`: the place of each node in its shard."""

from collections.abc import Iterable
from typing import Any

import msgspec
from django.db import connection
from django.db.models import QuerySet

from rollout.domain.node.state import Identity
from rollout.domain.topology.places import places_of
from rollout.domain.topology.servers import Server, ServerFacts
from rollout.models import Node, ShardMember
from rollout.queries.nodes import node_rows

#: The number of PostgreSQL's advisory lock, in the key space of two numbers. The log's lock has one number.
_LOCK = (1_297_040_455, 1)
_PLACE = ("shard", "role", "master", "depth", "replicas", "unmanaged", "ignored", "unmanaged_master")
_REPORTED = ("replication", "facts", "migrations", "host", "not_ready", "not_ready_message", "not_ready_since")


def place_members(news: dict[str, ShardMember] | None = None) -> set[str]:
    """Place all nodes in their shards again. Return the nodes whose rows have changed. Call this in a transaction.

    `news`: rows with what their nodes have reported now; the transaction has locked the liveness of these nodes. Nodes that
    are not in the fleet, or whose identity is revoked, have no row. Three queries read, whatever the number of nodes; only
    rows that have changed are written.
    """
    _hold_lock()
    news = news or {}
    known = {row.node: row for row in ShardMember.objects.order_by("node")}
    in_fleet = set(members().values_list("name", flat=True))
    rows = {node: row for node, row in sorted((known | news).items()) if node in in_fleet}
    places = places_of([_server(row) for row in rows.values()])
    changed = [row for node, row in rows.items() if node in news or _place(row) != as_stored(places[node])]
    for row in changed:
        for name, value in as_stored(places[row.node]).items():
            setattr(row, name, value)
    if gone := known.keys() - rows.keys():
        ShardMember.objects.filter(node__in=gone).delete()
    # Two writes: what a node has reported belongs to the transaction that has locked its liveness.
    write_members((row for row in changed if row.node in news), (*_PLACE, *_REPORTED))
    write_members((row for row in changed if row.node not in news), _PLACE)
    return {row.node for row in changed}


def members() -> QuerySet[Node]:
    """Return the nodes that have a place in a shard: those of the fleet, without those whose identity is revoked."""
    return node_rows().exclude(identity=Identity.REVOKED)


def write_members(rows: Iterable[ShardMember], columns: Iterable[str] = _REPORTED) -> None:
    """Write these columns of the rows, which are in the order of names."""
    ShardMember.objects.bulk_create(rows, update_conflicts=True, unique_fields=["node"], update_fields=[*columns])


def as_stored(value: object) -> Any:
    """Return plain JSON values, as a row that is read has them: lists, not tuples."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _server(row: ShardMember) -> Server:
    return Server(node=row.node, host=row.host, facts=msgspec.convert(row.facts, ServerFacts))


def _place(row: ShardMember) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _PLACE}


def _hold_lock() -> None:
    """Let only one transaction place members, until it ends. SQLite has one writer anyway."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", _LOCK)
