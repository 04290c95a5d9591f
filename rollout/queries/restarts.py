"""Which servers must not be restarted: for plans, and again before each release, because roles and replicas change."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Protocol

from rollout.domain.placement.commands import Skip
from rollout.domain.restarts import Permission, full_sync_expected, why_not_restart
from rollout.messages import Reason, Way
from rollout.models import Operation, ShardMember

_NOT_KNOWN: Mapping[str, Any] = {}


class Facts(Protocol):
    """Where the facts come from: the database, or the memory of the simulation."""

    def servers(self, nodes: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the newest `messages.ServerState` of each node, as JSON."""

    def permission(self, uid: str) -> Permission:
        """Return what a person has allowed for the restarts of the rollout."""

    def restarts_ended(self, nodes: Collection[str], since: datetime) -> Mapping[str, datetime]:
        """Return when the newest restart of each of these nodes has ended, of those that have since then."""


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


def senders(member: ShardMember, server: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the nodes of which one sends all its data to this one after its restart; none if that is not expected, or if a person
    chooses the moment. `server`: its newest `messages.ServerState` as JSON."""
    if server.get("restart") == "external" or not full_sync_expected(server):
        return ()
    return (member.master,) if member.master else tuple(member.replicas)


def unsafe_restarts(
    rows: Sequence[Operation],
    members: Mapping[str, ShardMember],
    servers: Mapping[str, Mapping[str, Any]],
    stale: Collection[str],
    facts: Facts,
) -> Mapping[str, Skip]:
    """Return the nodes of these operations of one rollout whose servers must not be restarted now. One query if there are
    restarts. `servers` and `stale`: as in `refused_restarts`."""
    nodes = sorted({each.node for each in rows if each.way == Way.RESTART and each.node in members})
    if not nodes:
        return {}
    refused = refused_restarts(nodes, members, servers, facts.permission(rows[0].rollout), stale)
    known = {name: server for name, server in servers.items() if name not in stale}
    for name in nodes:
        if name in refused:
            continue
        for sender in senders(members[name], servers.get(name, _NOT_KNOWN)):
            if words := _why_not_send(sender, known.get(sender, _NOT_KNOWN)):
                refused[name] = Reason.SAVE_UNSAFE, f"{name} then needs all data of {sender}. {words}"
    return refused


def _why_not_send(sender: str, server: Mapping[str, Any]) -> str:
    """Return why the server must not save its data for a replica now, as a sentence; empty if it may."""
    if server.get("problem") or not server.get("restart"):  # an older agent does not say it
        return f"It is not known if {sender} can save them."
    return str(server.get("save_problem", ""))


def outdated(
    nodes: Iterable[str],
    members: Mapping[str, ShardMember],
    servers: Mapping[str, Mapping[str, Any]],
    heard_at: Mapping[str, datetime],
    facts: Facts,
) -> dict[str, str]:
    """Return the nodes whose restart depends on a master that has sent no facts since the newest end of a restart among its
    replicas, each with its master. One query if there are any that depend on one."""
    deciders = {}
    for name in nodes:
        member, server = members.get(name), servers.get(name, _NOT_KNOWN)
        if member is None or server.get("restart") == "external":
            continue
        above = member.master or name
        needs = servers.get(above, _NOT_KNOWN).get("min_replicas_to_write") != 0 or senders(member, server)
        if above in members and above in heard_at and (needs if member.master else member.replicas):
            deciders[name] = above
    if not deciders:
        return {}
    copies = {above: {above, *members[above].replicas} for above in deciders.values()}
    ends = facts.restarts_ended({*chain.from_iterable(copies.values())}, min(heard_at[each] for each in copies))
    late = {
        above for above, names in copies.items() if any(ends[each] >= heard_at[above] for each in names & ends.keys())
    }
    return {name: above for name, above in deciders.items() if above in late}
