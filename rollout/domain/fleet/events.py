"""Events of `fleet`."""

from eventstore import event

FLEET_STREAM = "fleet"


@event("fleet.frozen.v1")
class FleetFrozen:
    """Nothing is released anywhere until it is thawed."""

    reason: str


@event("fleet.thawed.v1")
class FleetThawed:
    pass


FleetEvent = FleetFrozen | FleetThawed
