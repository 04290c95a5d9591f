"""The decisions about the whole fleet: the freeze, and replicas that a person has accepted."""

import pytest

from rollout.domain.errors import IgnoredReplicaNotFoundError
from rollout.domain.fleet.decider import FLEET
from rollout.domain.fleet.events import FleetFrozen, FleetThawed, ReplicaIgnored, ReplicaUnignored
from rollout.domain.fleet.freeze import Freeze, Thaw
from rollout.domain.fleet.ignored_replicas import IgnoreReplica, UnignoreReplica

IGNORE = IgnoreReplica(address="a:1", reason="A backup")


def given(*commands):
    state = FLEET.initial
    for command in commands:
        for event in FLEET.decide(state, command):
            state = FLEET.evolve(state, event)
    return state


def test_each_command_leads_to_its_event():
    assert FLEET.decide(given(), Freeze(reason="night")) == [FleetFrozen(reason="night")]
    assert FLEET.decide(given(Freeze(reason="night")), Thaw()) == [FleetThawed()]
    assert FLEET.decide(given(), IGNORE) == [ReplicaIgnored(address="a:1", reason="A backup")]
    assert FLEET.decide(given(IGNORE), UnignoreReplica(address="a:1")) == [ReplicaUnignored(address="a:1")]


@pytest.mark.parametrize("command", [Freeze(reason="night"), IGNORE])
def test_the_second_time_nothing_happens(command):
    assert FLEET.decide(given(command), command) == []


def test_the_freeze_and_the_replicas_do_not_change_each_other():
    state = given(IGNORE, Freeze(reason="night"))
    assert (state.frozen, state.ignored) == ("night", {"a:1"})
    assert given(IGNORE, Freeze(reason="night"), Thaw()).ignored == {"a:1"}
    assert given(Freeze(reason="night"), IGNORE, UnignoreReplica(address="a:1")).frozen == "night"


def test_only_an_ignored_replica_is_unignored():
    with pytest.raises(IgnoredReplicaNotFoundError):
        FLEET.decide(given(IGNORE), UnignoreReplica(address="b:1"))
