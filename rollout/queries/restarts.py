"""Which servers must not be restarted: for plans, and again before each release, because roles and replicas change."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

from rollout.domain.placement.commands import Skip
from rollout.domain.restarts import Permission, why_not_restart
from rollout.messages import Way
from rollout.models import Operation, ShardMember

_NOT_KNOWN: Mapping[str, Any] = {}


class Facts(Protocol):
    """Where the facts come from: the database, or the memory of the simulation."""

    def servers(self, nodes: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the newest `messages.ServerState` of each node, as JSON."""

    def permission(self, uid: str) -> Permission:
        """Return what a person has allowed for the restarts of the rollout."""


def deciding(nodes: Collection[str], members: Mapping[str, ShardMember]) -> set[str]:
    """Return the nodes whose servers decide if these may be restarted: themselves, their masters and their replicas."""
    found = [members[each] for each in nodes if each in members]
    return {*nodes, *(each.master for each in found), *chain.from_iterable(each.replicas for each in found)} - {""}


def refused_restarts(
    nodes: Iterable[str],
    members: Mapping[str, ShardMember],
    servers: Mapping[str, Mapping[str, Any]],
    permission: Permission,
    stale: Collection[str] = (),
) -> dict[str, Skip]:
    """Return the nodes whose servers must not be restarted, and why.

    `servers`: the newest `messages.ServerState` of each of the `deciding` nodes, as JSON. `stale`: the nodes whose newest facts are
    too old to act on.
    """
    known = {name: server for name, server in servers.items() if name not in stale}
    found: dict[str, Skip] = {}
    for name in nodes:
        server, member = servers.get(name, _NOT_KNOWN), members.get(name)
        master = known.get(member.master) if member else None
        strangers = (*member.unmanaged, *member.ignored) if member else ()
        copies = {each: known.get(each, _NOT_KNOWN) for each in (member.replicas if member else ())}
        if skip := why_not_restart(name, server, master, permission, strangers, copies):
            found[name] = skip
    return found


def unsafe_restarts(
    rows: Sequence[Operation], members: Mapping[str, ShardMember], stale: Collection[str], facts: Facts
) -> Mapping[str, Skip]:
    """Return the nodes of these operations of one rollout whose servers must not be restarted now. Two queries if there are
    restarts. `stale`: as in `refused_restarts`."""
    nodes = {each.node for each in rows if each.way == Way.RESTART and each.node in members}
    if not nodes:
        return {}
    servers, permission = facts.servers(deciding(nodes, members)), facts.permission(rows[0].rollout)
    return refused_restarts(sorted(nodes), members, servers, permission, stale)
