"""Records the place of each server in its shard, and if the server is ready for a change. It creates no event.

A node that changes its place all the time is recorded at a limited rate, because each change places all nodes again. Until
then, its row keeps the older place, and its agent returns an operation that is released by that place.
"""

from collections.abc import Collection, Iterable, Mapping
from copy import copy
from dataclasses import replace
from datetime import datetime

from msgspec.json import encode

import decoding
from rollout.domain.node.pace import full_after, is_limited
from rollout.domain.topology.servers import ServerFacts, facts_of, replication_of
from rollout.messages import Heartbeat, ServerState, SlotMigration
from rollout.models import ShardMember
from rollout.process.shards import as_stored, members, place_members, read_facts, write_members
from rollout.readiness import why_not_ready

#: Changes of one node's place that are recorded at once. After them, one is recorded each `SECONDS`.
BURST = 60
SECONDS = 30.0


def record_members(heartbeats: Collection[Heartbeat], now: datetime) -> set[str]:
    """Write what has changed, and return the nodes whose rows have changed, also those of other nodes.

    The heartbeats are in the order of names, and their rows of `Liveness` are locked. One query if nothing has changed.
    """
    reported = {each.node: each for each in heartbeats if each.facts is not None}
    if not reported:
        return set()
    shards = ShardMember.objects.filter(node__in=reported).values("shard")
    known = {row.node: row for row in ShardMember.objects.filter(shard__in=shards)}
    new = reported.keys() - known.keys()
    if new:
        new &= set(members().filter(name__in=new).values_list("name", flat=True))
    rows = {name: _row(each, known.get(name), now) for name, each in reported.items() if name in known or name in new}
    newest = known | rows
    for row in rows.values():
        _judge(row, reported[row.node].facts or ServerState(), _copied(row, newest), now)
    changed = {name: row for name, row in rows.items() if name in new or _reported(row) != _reported(known[name])}
    if any(name in new or row.facts != known[name].facts for name, row in changed.items()):
        return place_members(changed)
    write_members(changed.values())
    return {*changed}


def _row(heartbeat: Heartbeat, before: ShardMember | None, now: datetime) -> ShardMember:
    state = heartbeat.facts or ServerState()
    row = ShardMember(node=heartbeat.node) if before is None else copy(before)
    row.migrations = as_stored(state.migrations or ())
    if before is not None and not state.role:
        return row  # the server is away, and its place stays
    host, replication = heartbeat.host, as_stored(replication_of(state))
    facts = encode(_facts(state, before)).decode()
    if (row.host, row.facts) != (host, facts):
        if is_limited(row.pace, now.timestamp(), burst=BURST, seconds=SECONDS):
            return row
        row.pace = full_after(row.pace, now.timestamp(), burst=BURST, seconds=SECONDS)
    row.host, row.replication, row.facts = host, replication, facts
    return row


def _facts(state: ServerState, before: ShardMember | None) -> ServerFacts:
    """Return the facts of the server. While it loads its data, it does not say by which names others know it: then it has
    those from before, or its master would have a replica that is no node."""
    facts = facts_of(state)
    if before is None or not before.facts or not state.loading:
        return facts
    former = read_facts(before.facts)
    kept = {name: getattr(former, name) for name in ("addresses", "network", "node_id", "replica_ids")}
    return replace(facts, **kept)


def _copied(row: ShardMember, members: Mapping[str, ShardMember]) -> list[ShardMember]:
    """Return the nodes that the server copies, its master first; and those that say that they are its master, if none is
    matched. The word of other nodes of its shard does not count: one that lies would make all of them wait."""
    found = {name: members[name] for name in row.claimants if row.unmanaged_master and name in members}
    name = row.master
    while name in members and name not in found:
        found[name] = members[name]
        name = members[name].master
    return [each for each in found.values() if each is not row]


def _judge(row: ShardMember, state: ServerState, copied: Iterable[ShardMember], now: datetime) -> None:
    """Note if the server is ready for a change. `copied`: the members that it copies."""
    migrations = {
        each.node: ServerState(migrations=decoding.convert(each.migrations, tuple[SlotMigration, ...]))
        for each in copied
    }
    before = row.not_ready
    row.not_ready, message = why_not_ready(state, others=migrations) or ("", "")
    row.not_ready_message = message[:1000]
    if not row.not_ready:
        row.not_ready_since = None
    elif row.not_ready != before:
        row.not_ready_since = now


def _reported(row: ShardMember) -> tuple[object, ...]:
    return row.facts, row.host, row.replication, row.migrations, row.not_ready, row.not_ready_message
