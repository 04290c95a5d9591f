"""Ignores replicas that are no nodes, and ends that."""

from django.db import transaction

from eventstore import transact
from rollout.domain.fleet.decider import FLEET, FleetCommand
from rollout.domain.fleet.events import FLEET_STREAM
from rollout.domain.fleet.ignored_replicas import IgnoreReplica, UnignoreReplica
from rollout.domain.topology.addresses import checked_replica
from rollout.process.advance import advance_all
from rollout.process.shards import place_members
from rollout.queries.rollouts import unfinished_rollouts_of


def ignore_replica(address: str, *, reason: str) -> str:
    """Let masters with this replica get modules, although the replica is no node. Return the address as it is recorded.

    Raises: `InvalidAddressError`.
    """
    found = checked_replica(address)
    _decide(IgnoreReplica(address=found, reason=reason))
    return found


def unignore_replica(address: str) -> None:
    """End that. Raises: `InvalidAddressError`, `IgnoredReplicaNotFoundError`."""
    _decide(UnignoreReplica(address=checked_replica(address)))


def _decide(command: FleetCommand) -> None:
    with transaction.atomic():
        transact(FLEET_STREAM, FLEET, command)
        changed = place_members()
    advance_all(unfinished_rollouts_of(*changed))
