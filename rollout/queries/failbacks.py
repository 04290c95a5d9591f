"""Which masters gave their role away in a rollout, and what keeps them from getting it back now."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import decoding
from rollout.domain.placement.commands import Skip
from rollout.domain.restarts import why_not_fail_back
from rollout.domain.topology.addresses import canonical
from rollout.domain.topology.directory import Directory
from rollout.domain.topology.servers import Peer, Server, ServerFacts
from rollout.messages import Replication, Ways
from rollout.models import Liveness, Node, Operation, Rollout, ShardMember
from rollout.queries.restarts import Facts

_read_facts = decoding.decoder(ServerFacts).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Failback:
    """A shard whose master has changed in a rollout. `former`: the node that was the master first. `now`: the one that became the
    master last, empty if `address` is that of no node of the shard."""

    former: str
    now: str
    address: str


def failbacks_of(uid: str) -> list[Failback]:
    """Return the shards in which the rollout, or those that it retries, failed over, by the node that was the master.

    Every member of the fleet is read: what a node says about the new master is matched with what all nodes say.
    """
    rows = Operation.attempts.filter(rollout__in=_with_retried(uid), restart__isnull=False).order_by("finished_at")
    restarts = rows.values_list("node", "restart")
    moved = [(node, restart["failover"]["new"]) for node, restart in restarts if restart and restart["failover"]]
    if not moved:
        return []
    names = dict(Node.objects.values_list("name", "address"))
    members = {
        each.node: each for each in ShardMember.objects.only("node", "facts", "shard", "master", "former_shards")
    }
    servers = {
        name: Server(node=name, address=names[name], facts=_read_facts(each.facts))
        for name, each in members.items()
        if name in names
    }
    for name, new in moved:  # its newest heartbeat may be older than the failover
        if name in servers:
            facts = replace(servers[name].facts, role="replica", master=Peer(address=canonical(new)))
            servers[name] = replace(servers[name], facts=facts)
    directory = Directory(servers.values())
    by_shard: dict[str, Failback] = {}
    for name, new in moved:
        if name not in servers:
            continue
        found = directory.find(Peer(address=canonical(new)), servers[name]) or members[name].master
        if found not in members or not _shards(members[found]) & _shards(members[name]):
            found = ""  # a node may lie
        first = by_shard.get(members[name].shard)
        by_shard[members[name].shard] = Failback(former=first.former if first else name, now=found, address=new)
    return sorted((each for each in by_shard.values() if each.former != each.now), key=lambda each: each.former)


#: The most failovers that `failovers_of` returns, the newest.
MOST_FAILOVERS = 25


def failovers_of(row: Rollout) -> list[dict[str, Any]]:
    """Return where the masters were and are that failed over in the rollout, as JSON, the newest last. At most one query."""
    if row.ways == Ways.LOAD:
        return []
    rows = Operation.attempts.filter(rollout=row.uid, restart__isnull=False).exclude(restart__failover=None)
    newest = rows.order_by("-finished_at").values_list("node", "restart")[:MOST_FAILOVERS]
    found = [{"node": node, **restart["failover"]} for node, restart in newest if restart]
    return [{**each, "text": _in_words(each)} for each in reversed(found)]


def _in_words(moved: Mapping[str, Any]) -> str:
    return f"{moved['node']}: the master was {moved['former']} and is {moved['new']}."


def _shards(member: ShardMember) -> set[str]:
    """Return the names of the shard: that of a failover may not have reached all members yet."""
    return {member.shard, *member.former_shards}


def _with_retried(uid: str) -> list[str]:
    """Return the rollout, and those whose nodes it retries, the newest first."""
    uids = [uid]
    while former := Rollout.objects.filter(uid=uids[-1]).values_list("retry_of", flat=True).first():
        uids.append(former)
    return uids


def unsafe_failbacks(
    rows: Iterable[Operation], members: Mapping[str, ShardMember], heard: Mapping[str, Liveness], facts: Facts
) -> dict[str, Skip]:
    """Return the nodes of these operations that cannot give their role back now, and why. One query if there are failbacks."""
    found = {each.node: each for each in rows if each.fails_back_to}
    nodes = {*found, *(each.fails_back_to for each in found.values())}
    servers = facts.servers(nodes) if found else {}
    return {
        name: skip
        for name, row in found.items()
        if (skip := _why_not(row, members.get(name), _said_since(row, servers, heard)))
    }


def _said_since(
    row: Operation, servers: Mapping[str, Mapping[str, Any]], heard: Mapping[str, Liveness]
) -> Mapping[str, Mapping[str, Any]]:
    """Return what the two servers have said since the failback was asked for: before, they had other roles."""
    return {
        name: servers[name]
        for name in (row.node, row.fails_back_to)
        if name in servers and name in heard and (heard[name].facts_at or heard[name].last_seen) > row.scheduled_at
    }


def _why_not(row: Operation, member: ShardMember | None, servers: Mapping[str, Mapping[str, Any]]) -> Skip | None:
    replicas = set(member.replicas) - {*member.unlisted, *member.contrary} if member else set()
    return why_not_fail_back(
        row.node,
        row.fails_back_to,
        servers.get(row.node, {}),
        servers.get(row.fails_back_to, {}),
        is_listed=row.fails_back_to in replicas,
    )


def listed_addresses(operations: Sequence[Operation]) -> dict[str, str]:
    """Return the address of the former master as the INFO of the present one lists it, by the operation's key.

    If it is not known, return the name of the node: no replica has it as its address, so the agent returns the operation.
    """
    found = {each.key: each for each in operations if each.fails_back_to}
    if not found:
        return {}
    shards = ShardMember.objects.filter(node__in=[each.node for each in found.values()]).values("shard")
    members = {each.node: each for each in ShardMember.objects.filter(shard__in=shards)}
    addresses = dict(Node.objects.filter(name__in=members).values_list("name", "address"))
    servers = {
        name: Server(node=name, address=addresses.get(name, ""), facts=_read_facts(each.facts))
        for name, each in members.items()
    }
    directory = Directory(servers.values())
    return {key: _listed(each, members, servers, directory) for key, each in found.items()}


def _listed(
    row: Operation, members: Mapping[str, ShardMember], servers: Mapping[str, Server], directory: Directory
) -> str:
    if row.node not in servers:
        return row.fails_back_to
    raw: Collection[str] = decoding.convert(members[row.node].replication, Replication).replicas
    peers = {each: directory.find(Peer(address=canonical(each)), servers[row.node]) for each in raw}
    return next((each for each, node in peers.items() if node == row.fails_back_to), row.fails_back_to)
