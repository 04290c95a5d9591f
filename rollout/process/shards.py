"""Keeps the rows of `ShardMember`: the place of each node in its shard."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast
from msgspec import json

import decoding
from eventstore import database_now
from rollout.domain.node.state import Identity
from rollout.domain.topology.places import Place, places_of
from rollout.domain.topology.servers import Server, ServerFacts
from rollout.models import Node, ShardMember
from rollout.queries.ignored_replicas import ignored_addresses
from rollout.queries.nodes import node_rows
from rollout.queries.turns import lately_left

#: The number of PostgreSQL's advisory lock, in the key space of two numbers. The log's lock has one number.
_LOCK = (1_297_040_455, 1)
_REPORTED = ("replication", "facts", "pace", "migrations", "host", "not_ready", "not_ready_message", "not_ready_since")
_PLACE = (
    "shard",
    "role",
    "master",
    "depth",
    "replicas",
    "unlisted",
    "contrary",
    "unmanaged",
    "ignored",
    "unmanaged_master",
    "doubted",
    "claimants",
)
#: Decoded by msgspec, which takes a fifth of Django's time.
_LISTS = ("replicas", "unlisted", "contrary", "unmanaged", "ignored", "claimants")
read_facts = decoding.decoder(ServerFacts).decode
_read_list = decoding.decoder(tuple[str, ...]).decode


def place_members(news: Mapping[str, ShardMember] | None = None) -> set[str]:
    """Place all nodes in their shards again. Return the nodes whose rows have changed. Call this in a transaction.

    `news`: rows with what their nodes have reported now; the transaction has locked the liveness of these nodes. Nodes that
    are not in the fleet, or whose identity is revoked, have no row. As many queries whatever the number of nodes; only rows
    that have changed are written.
    """
    _hold_lock()
    news = news or {}
    known, facts = _known_members()
    facts |= {name: row.facts for name, row in news.items()}
    addresses = dict(members().order_by("name").values_list("name", "address"))
    servers = [
        Server(node=name, address=address, facts=read_facts(facts[name]))
        for name, address in addresses.items()
        if name in facts
    ]
    places = places_of(servers, ignored_addresses())
    if gone := known.keys() - places.keys():
        ShardMember.objects.filter(node__in=gone).delete()
    moved = [name for name, place in places.items() if name not in news and place != known[name]]
    # Two writes: what a node has reported is written only by a transaction that has locked its liveness.
    write_members(
        _placed((row for name, row in news.items() if name in places), places), (*_PLACE, "former_shards", *_REPORTED)
    )
    if moved:
        write_members(
            _placed(ShardMember.objects.filter(node__in=moved).order_by("node"), places), (*_PLACE, "former_shards")
        )
    return {*moved, *news.keys() & places.keys()}


def members() -> QuerySet[Node]:
    """Return the nodes that have a place in a shard: those of the fleet, without those whose identity is revoked."""
    return node_rows().exclude(identity=Identity.REVOKED)


def write_members(rows: Iterable[ShardMember], columns: Iterable[str] = _REPORTED) -> None:
    """Write these columns of the rows, which are in the order of names."""
    ShardMember.objects.bulk_create(rows, update_conflicts=True, unique_fields=["node"], update_fields=[*columns])


def as_stored(value: object) -> Any:
    """Return plain JSON values, as a row that is read has them: lists, not tuples."""
    return json.decode(json.encode(value))


def _known_members() -> tuple[dict[str, Place], dict[str, str]]:
    """Return all places as they are written, and the facts that they are computed from. One query."""
    plain = [each for each in _PLACE if each not in _LISTS]
    lists = {f"{each}_text": Cast(each, TextField()) for each in _LISTS}
    found: dict[str, Place] = {}
    basis: dict[str, str] = {}
    rows = ShardMember.objects.annotate(**lists).values_list("node", "facts", *plain, *lists)
    for node, facts, *values in rows:
        fields: dict[str, Any] = dict(zip(plain, values, strict=False))
        fields |= zip(_LISTS, map(_read_list, values[len(plain) :]), strict=True)
        found[node], basis[node] = Place(**fields), facts
    return found, basis


def move(row: ShardMember, place: Place, now: datetime) -> None:
    """Write the place into the row, and note its former shard if the shard has changed."""
    if row.shard and row.shard != place.shard:
        row.former_shards = {**lately_left(row, now), row.shard: now.timestamp()}
    for name, value in as_stored(place).items():
        setattr(row, name, value)


def _placed(rows: Iterable[ShardMember], places: Mapping[str, Place]) -> list[ShardMember]:
    placed, now = [*rows], database_now()
    for row in placed:
        move(row, places[row.node], now)
    return placed


def _hold_lock() -> None:
    """Let only one transaction place members, until it ends. SQLite has one writer anyway."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", _LOCK)
