"""Where servers save, load or synchronize their data, or are about to by an operation: at most one of them on a host at a time."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from django.db.models import OuterRef, Q, Subquery

from rollout.messages import CHILD_WORKS, Action, Way
from rollout.models import NodeFacts, Operation, ShardMember
from rollout.queries.restarts import senders

_AT_WORK = (
    Q(server__loading=True)
    | Q(server__async_loading=True)
    | Q(server__master_sync_in_progress=True)
    | Q(server__save_problem__endswith=CHILD_WORKS)
)
#: Operations that make a server save its data, or may: a removal rewrites an append-only file.
HEAVY = Q(way=Way.RESTART) | Q(action=Action.REMOVE)


class Facts(Protocol):
    """Where the facts come from: the database, or the memory of the simulation."""

    def members(self, nodes: Collection[str]) -> Mapping[str, ShardMember]:
        """Return the places of these nodes in their shards."""

    def servers(self, nodes: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the newest `messages.ServerState` of each node, as JSON."""

    def at_work(self, hosts: Collection[str], nodes: Collection[str]) -> Mapping[str, str]:
        """Return `at_work`."""


def at_work(hosts: Collection[str], nodes: Collection[str]) -> dict[str, str]:
    """Return the nodes on these hosts, and of these nodes, whose servers save, load or synchronize their data, by their newest
    heartbeats; and the host of each."""
    members = ShardMember.objects.filter(Q(host__in=hosts) | Q(node__in=nodes))
    host = Subquery(ShardMember.objects.filter(node=OuterRef("node")).values("host")[:1])
    rows = NodeFacts.objects.filter(_AT_WORK, node__in=members.values("node")).annotate(host=host)
    return dict(rows.values_list("node", "host"))


def is_heavy(row: Operation) -> bool:
    """Return True if the operation is one of `HEAVY`."""
    return bool(row.way == Way.RESTART or row.action == Action.REMOVE)


def host_of(member: ShardMember) -> str:
    """Return what names the node's host. A host that is not known is one of its own."""
    return member.host or f"host of {member.node}"


def hosts_of(
    rows: Iterable[Operation], members: Mapping[str, ShardMember], servers: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, str]]:
    """Return for each node of these heavy operations the hosts on which its operation makes a server save, load or synchronize
    its data, each with a node that is there.

    `servers`: the newest `messages.ServerState` of each node, as JSON.
    """
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        member, server = members.get(row.node), servers.get(row.node, {})
        restarts = row.way == Way.RESTART
        if member is None or not (restarts or server.get("aof_enabled") is not False):
            continue
        sending = [members[each] for each in (senders(member, server) if restarts else ()) if each in members]
        found[row.node] = {host_of(each): each.node for each in (*sending, member)}
    return found


def in_progress(rows: Sequence[Operation], facts: Facts) -> dict[str, set[str]]:
    """Return the nodes of these heavy operations by each host on which they make a server save, load or synchronize its data.

    Three queries if there are any.
    """
    if not rows:
        return {}
    nodes = {each.node for each in rows}
    members, servers = facts.members(nodes), facts.servers(nodes)
    others = {each for name, member in members.items() for each in senders(member, servers.get(name, {}))} - nodes
    if others:
        members = {**members, **facts.members(others)}
    found: dict[str, set[str]] = {}
    for name, hosts in hosts_of(rows, members, servers).items():
        for each in hosts:
            found.setdefault(each, set()).add(name)
    return found


def working(
    hosts: Mapping[str, Mapping[str, str]], members: Iterable[ShardMember], facts: Facts
) -> dict[str, set[str]]:
    """Return the nodes whose servers work on one of these `hosts_of`, by host. One query if there are any."""
    names = {each for found in hosts.values() for each in found}
    if not names:
        return {}
    unknown = {each.node for each in members if not each.host and host_of(each) in names}
    found: dict[str, set[str]] = {}
    for name, host in facts.at_work(names, unknown).items():
        found.setdefault(host or f"host of {name}", set()).add(name)
    return found
