"""Ignores replicas that are no nodes, and ends that."""

from django.db import transaction

from eventstore import transact
from rollout.domain.errors import InvalidAddressError
from rollout.domain.fleet.decider import FLEET, FleetCommand
from rollout.domain.fleet.events import FLEET_STREAM
from rollout.domain.fleet.ignored_replicas import IgnoreReplica, UnignoreReplica
from rollout.domain.topology.addresses import checked_replica, is_loopback
from rollout.domain.topology.servers import ServerFacts
from rollout.models import Node, ShardMember
from rollout.process.advance import advance_all
from rollout.process.shards import place_members, read_facts
from rollout.queries.rollouts import unfinished_rollouts_of


def ignore_replica(address: str, *, reason: str) -> str:
    """Let masters with this replica get modules, although the replica is no node. Return the address as it is recorded.

    Raises: `InvalidAddressError`, also for the address of a node: a node is never ignored.
    """
    found = checked_replica(address)
    _refuse_node(found)
    _decide(IgnoreReplica(address=found, reason=reason))
    return found


def _refuse_node(address: str) -> None:
    """Raises: `InvalidAddressError` if a person has set the address for a node, or only one node reports it or its node id."""
    if is_loopback(address):  # it means another server on each host
        if not _is_listed(address):
            raise InvalidAddressError(
                f"No server has a replica {address} that is no node. A loopback address means another server on each host, so it is "
                "accepted only while `modfleet nodes --tree` shows it as an unmanaged replica."
            )
        return
    given = dict(Node.objects.exclude(address="").values_list("address", "name"))
    name = given.get(address)
    if name is None:
        likely = ShardMember.objects.filter(facts__contains=address).exclude(node__in=given.values())
        rows = likely.values_list("node", "facts")
        names = [node for node, facts in rows if _is_of(address, read_facts(facts))]
        name = names[0] if len(names) == 1 else None
    if name is not None:
        raise InvalidAddressError(
            f"{address} is the server of node {name}, and a node is never ignored: give {name} the module too, or "
            f"decommission it first with `modfleet nodes decommission {name}`."
        )


def _is_listed(address: str) -> bool:
    """Return True if a server has such a replica that is no node."""
    rows = ShardMember.objects.exclude(unmanaged=[], ignored=[]).values_list("unmanaged", "ignored")
    return any(address in (*unmanaged, *ignored) for unmanaged, ignored in rows)


def _is_of(address: str, facts: ServerFacts) -> bool:
    return address in facts.addresses or address == facts.node_id


def unignore_replica(address: str) -> None:
    """End that. Raises: `InvalidAddressError`, `IgnoredReplicaNotFoundError`."""
    _decide(UnignoreReplica(address=checked_replica(address)))


def _decide(command: FleetCommand) -> None:
    with transaction.atomic():
        transact(FLEET_STREAM, FLEET, command)
        changed = place_members()
    advance_all(unfinished_rollouts_of(*changed))
