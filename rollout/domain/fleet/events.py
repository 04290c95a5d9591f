"""Events of `fleet`: the freeze of all releases, and the replicas that a person has accepted."""

from eventstore import event

FLEET_STREAM = "fleet"


@event("fleet.frozen.v1")
class FleetFrozen:
    """A person froze the fleet: nothing is released to any node until it is thawed. `reason` is for people."""

    reason: str


@event("fleet.thawed.v1")
class FleetThawed:
    """A person ended the freeze."""


@event("fleet.replica_ignored.v1")
class ReplicaIgnored:
    """A person accepted a replica that is no node: its master gets modules although the replica does not. `address`:
    `host:port`, or a cluster node id. `reason` is for people."""

    address: str
    reason: str


@event("fleet.replica_unignored.v1")
class ReplicaUnignored:
    """A person withdrew that: a master with this replica gets no module while the replica is no node."""

    address: str


FleetEvent = FleetFrozen | FleetThawed | ReplicaIgnored | ReplicaUnignored
