"""Records the place of each server in its shard, and if the server is ready for a change. It creates no event."""

from collections.abc import Collection
from copy import copy
from datetime import datetime

from rollout.domain.topology.servers import facts_of, replication_of
from rollout.messages import Heartbeat, ServerState
from rollout.models import ShardMember
from rollout.process.shards import as_stored, members, place_members, write_members
from rollout.readiness import why_not_ready


def record_members(heartbeats: Collection[Heartbeat], now: datetime) -> set[str]:
    """Write what has changed, and return the nodes whose rows have changed, also those of other nodes.

    The heartbeats are in the order of names, and their rows of `Liveness` are locked. One query if nothing has changed.
    """
    reported = {each.node: each for each in heartbeats if each.facts is not None}
    if not reported:
        return set()
    known = ShardMember.objects.in_bulk(reported)
    new = reported.keys() - known.keys()
    if new:
        new &= set(members().filter(name__in=new).values_list("name", flat=True))
    rows = [_row(each, known.get(name), now) for name, each in reported.items() if name in known or name in new]
    changed = {row.node: row for row in rows if row.node in new or _reported(row) != _reported(known[row.node])}
    if any(node in new or _basis(row) != _basis(known[node]) for node, row in changed.items()):
        return place_members(changed)
    write_members(changed.values())
    return {*changed}


def _row(heartbeat: Heartbeat, before: ShardMember | None, now: datetime) -> ShardMember:
    state = heartbeat.facts or ServerState()
    row = ShardMember(node=heartbeat.node) if before is None else copy(before)
    row.host = heartbeat.host
    if state.role or before is None:  # else the server is away, and its place stays
        row.replication, row.facts = as_stored(replication_of(state)), as_stored(facts_of(state))
    row.not_ready, row.not_ready_message = why_not_ready(state) or ("", "")
    if not row.not_ready:
        row.not_ready_since = None
    elif before is None or before.not_ready != row.not_ready:
        row.not_ready_since = now
    return row


def _basis(row: ShardMember) -> tuple[object, ...]:
    """Return the columns that the places of nodes are computed from."""
    return row.facts, row.host


def _reported(row: ShardMember) -> tuple[object, ...]:
    return *_basis(row), row.replication, row.not_ready, row.not_ready_message
