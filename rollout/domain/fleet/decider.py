"""The decisions about the whole fleet: which command leads to which rule."""

from eventstore import Decider
from rollout.domain.fleet.events import FleetEvent
from rollout.domain.fleet.freeze import Freeze, Thaw, freeze, thaw
from rollout.domain.fleet.ignored_replicas import IgnoreReplica, UnignoreReplica, ignore, unignore
from rollout.domain.fleet.state import FleetState, evolve

FleetCommand = Freeze | Thaw | IgnoreReplica | UnignoreReplica


def decide(state: FleetState, command: FleetCommand) -> list[FleetEvent]:
    match command:
        case Freeze():
            return freeze(state, command)
        case Thaw():
            return thaw(state)
        case IgnoreReplica():
            return ignore(state, command)
        case UnignoreReplica():
            return unignore(state, command)


FLEET = Decider(FleetState(), decide, evolve)
