"""Events of `fleet`: the freeze of all releases."""

from eventstore import event

FLEET_STREAM = "fleet"


@event("fleet.frozen.v1")
class FleetFrozen:
    """A person froze the fleet: nothing is released to any node until it is thawed. `reason` is for people."""

    reason: str


@event("fleet.thawed.v1")
class FleetThawed:
    """A person ended the freeze."""


FleetEvent = FleetFrozen | FleetThawed
