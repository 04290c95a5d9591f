"""The rules of one node."""

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from rollout.domain.errors import NodeNotFoundError, NodePendingError, NodePhaseError
from rollout.domain.node.commands import (
    ActivateNode,
    DeclareOffline,
    DecommissionNode,
    DrainNode,
    EnrollNode,
    ForgetNode,
    LabelNode,
    RecordHeartbeat,
    RecordInventory,
)
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import (
    NodeActivated,
    NodeCameBack,
    NodeDecommissioned,
    NodeDegraded,
    NodeDrained,
    NodeInventoryChanged,
    NodeJoined,
    NodeLabelled,
    NodeProfileChanged,
    NodeRecovered,
    NodeWentOffline,
)
from rollout.domain.node.health import Degradation
from rollout.domain.node.pace import Change
from rollout.domain.node.state import NodePhase
from rollout.messages import InstalledModule, Inventory, NodeProfile

PROFILE = NodeProfile(platform="linux/x86_64")
GREET = InstalledModule(module_name="greet", version=1, content_sha256="c", loaded=True)


def heartbeat(*, hello=False, profile=PROFILE, sequence=1, modules=(), **more):
    inventory = Inventory(sequence=sequence, modules=modules)
    return RecordHeartbeat(node="n1", hello=hello, profile=profile, inventory=inventory, **more)


HELLO = heartbeat(hello=True)
OFFLINE, DRAIN = DeclareOffline(node="n1"), DrainNode(node="n1")
ACTIVATE, DECOMMISSION = ActivateNode(node="n1"), DecommissionNode(node="n1")


ENROLL = EnrollNode(
    node="n1", token="t", public_key="k1", broker_password_sha256="h1", labels={}, accepted=True, is_silent=True
)


def given(*commands):
    """The state of a node that is enrolled, after these commands."""
    state = NODE.initial
    for command in (ENROLL, *commands):
        state = NODE.fold(NODE.decide(state, command), state)
    return state


def kinds(state, command):
    return [type(event) for event in NODE.decide(state, command)]


def test_it_works():
    assert kinds(given(), HELLO) == [NodeJoined]
    assert given(HELLO).phase is NodePhase.ONLINE
    assert kinds(given(HELLO), heartbeat(sequence=2)) == []


def test_any_heartbeat_of_an_enrolled_node_makes_it_join():
    assert kinds(given(), heartbeat()) == [NodeJoined]


def test_a_stranger_does_not_join():
    assert kinds(NODE.initial, heartbeat(hello=True)) == []


def test_a_beat_tells_what_has_changed():
    assert kinds(given(HELLO), heartbeat(profile=NodeProfile(platform="linux/arm64"))) == [NodeProfileChanged]
    assert kinds(given(HELLO), heartbeat(sequence=2, modules=(GREET,))) == [NodeInventoryChanged]


def test_an_older_look_at_the_inventory_is_ignored():
    state = given(HELLO, heartbeat(sequence=9, modules=(GREET,)))
    assert kinds(state, heartbeat(sequence=8)) == []
    assert kinds(state, RecordInventory(node="n1", inventory=Inventory(sequence=9))) == []
    assert kinds(state, RecordInventory(node="n1", inventory=Inventory(sequence=10))) == [NodeInventoryChanged]


def test_a_clock_that_was_set_back_freezes_nothing():
    """An agent without incarnations counts by its clock, in nanoseconds."""
    day = 86_400 * 10**9
    state = given(HELLO, heartbeat(sequence=2**62, modules=(GREET,)))
    assert kinds(state, heartbeat(sequence=2**62 - 1)) == []
    assert kinds(state, heartbeat(sequence=2**62 - day)) == [NodeInventoryChanged]
    assert kinds(given(HELLO, heartbeat(sequence=2**63 - 1, modules=(GREET,))), heartbeat(sequence=day)) == [
        NodeInventoryChanged
    ]


def test_what_a_node_said_is_forgotten():
    forget = ForgetNode(node="n1")
    state = given(HELLO, heartbeat(sequence=9, modules=(GREET,)), forget)
    assert (state.modules, state.phase) == ((), NodePhase.OFFLINE)
    assert kinds(state, forget) == []
    assert kinds(state, heartbeat(sequence=1, modules=(GREET,))) == [NodeCameBack, NodeInventoryChanged]
    with pytest.raises(NodeNotFoundError):
        kinds(NODE.initial, forget)
    with pytest.raises(NodePendingError):
        kinds(given(), forget)
    with pytest.raises(NodePhaseError):
        kinds(given(HELLO, DECOMMISSION), forget)


@pytest.mark.parametrize("state", [NODE.initial, given()])
def test_an_inventory_of_a_stranger_is_ignored(state):
    """Neither of a node that is enrolled, but has not joined yet."""
    assert kinds(state, RecordInventory(node="n1", inventory=Inventory(sequence=1, modules=(GREET,)))) == []


def test_silence_and_the_way_back():
    assert kinds(given(HELLO), OFFLINE) == [NodeWentOffline]
    assert kinds(given(HELLO, OFFLINE), OFFLINE) == []
    assert kinds(given(HELLO, OFFLINE), heartbeat()) == [NodeCameBack]
    assert kinds(given(), OFFLINE) == kinds(NODE.initial, OFFLINE) == []


AWAY = Degradation(reason="server_unreachable", message="It cannot be reached.")
LOADING = Degradation(reason="server_loading", message="It is loading.")


def test_a_server_that_is_away_and_back():
    state = given(HELLO, heartbeat(degradation=AWAY))
    assert kinds(given(HELLO), heartbeat(degradation=AWAY)) == [NodeDegraded]
    assert state.phase is NodePhase.DEGRADED
    assert kinds(state, heartbeat(degradation=AWAY)) == []
    assert kinds(state, heartbeat(degradation=LOADING)) == [NodeDegraded]
    assert kinds(state, heartbeat()) == [NodeRecovered]
    assert given(HELLO, heartbeat(degradation=AWAY), heartbeat()).phase is NodePhase.ONLINE


def test_a_node_joins_with_a_server_that_is_away():
    assert kinds(given(), heartbeat(hello=True, degradation=AWAY)) == [NodeJoined, NodeDegraded]
    state = given(HELLO, heartbeat(degradation=AWAY), DECOMMISSION)
    assert kinds(state, HELLO) == [NodeJoined]
    assert given(HELLO, heartbeat(degradation=AWAY), DECOMMISSION, HELLO).phase is NodePhase.ONLINE


def test_a_change_of_health_that_must_wait():
    changes = frozenset(Change) - {Change.HEALTH}
    assert kinds(given(HELLO), heartbeat(degradation=AWAY, changes=changes)) == []


def test_silence_and_draining_hide_that_a_server_is_away():
    assert given(HELLO, heartbeat(degradation=AWAY), OFFLINE).phase is NodePhase.OFFLINE
    assert given(HELLO, heartbeat(degradation=AWAY), DRAIN).phase is NodePhase.DRAINING
    state = given(HELLO, heartbeat(degradation=AWAY), OFFLINE)
    assert kinds(state, heartbeat(degradation=AWAY)) == [NodeCameBack]
    assert kinds(state, heartbeat()) == [NodeCameBack, NodeRecovered]


def test_draining_lasts_over_silence():
    assert kinds(given(HELLO), DRAIN) == [NodeDrained]
    assert given(HELLO, DRAIN, OFFLINE).phase is NodePhase.OFFLINE
    state = given(HELLO, DRAIN, OFFLINE, heartbeat())
    assert state.phase is NodePhase.DRAINING
    assert kinds(state, ACTIVATE) == [NodeActivated]
    assert kinds(given(HELLO), ACTIVATE) == []


def test_labels_replace_those_before():
    assert kinds(given(HELLO), LabelNode(node="n1", labels={"rack": "a"})) == [NodeLabelled]
    state = given(HELLO, LabelNode(node="n1", labels={"rack": "a"}))
    assert kinds(state, LabelNode(node="n1", labels={"rack": "a"})) == []


def test_only_a_restarted_agent_brings_a_decommissioned_node_back():
    state = given(HELLO, heartbeat(sequence=5, modules=(GREET,)), DRAIN, DECOMMISSION)
    assert (state.phase, kinds(state, heartbeat(sequence=6)), kinds(state, OFFLINE)) == (
        NodePhase.DECOMMISSIONED,
        [],
        [],
    )
    again = given(
        HELLO, heartbeat(sequence=5, modules=(GREET,)), DRAIN, DECOMMISSION, heartbeat(hello=True, sequence=6)
    )
    assert (again.phase, again.modules) == (NodePhase.ONLINE, ())


@pytest.mark.parametrize("command", [DRAIN, ACTIVATE, DECOMMISSION, LabelNode(node="n1", labels={})])
def test_a_stranger_is_not_found(command):
    with pytest.raises(NodeNotFoundError):
        NODE.decide(NODE.initial, command)


@pytest.mark.parametrize("command", [DRAIN, ACTIVATE])
def test_a_pending_node_is_not_drained(command):
    with pytest.raises(NodePendingError):
        NODE.decide(given(), command)


def test_a_pending_node_may_be_labelled_and_decommissioned():
    assert kinds(given(), LabelNode(node="n1", labels={"rack": "a"})) == [NodeLabelled]
    assert kinds(given(), DECOMMISSION) == [NodeDecommissioned]
    assert given(DECOMMISSION).phase is NodePhase.DECOMMISSIONED


@pytest.mark.parametrize("command", [DRAIN, ACTIVATE, LabelNode(node="n1", labels={})])
def test_a_decommissioned_node_takes_no_orders(command):
    with pytest.raises(NodePhaseError):
        NODE.decide(given(HELLO, DECOMMISSION), command)


def test_a_decommission_twice_is_one():
    assert kinds(given(HELLO), DECOMMISSION) == [NodeDecommissioned]
    assert kinds(given(HELLO, DECOMMISSION), DECOMMISSION) == []


HEARTBEATS = st.builds(
    heartbeat,
    hello=st.booleans(),
    sequence=st.integers(0, 5),
    modules=st.sampled_from([(), (GREET,)]),
    profile=st.sampled_from([PROFILE, NodeProfile(platform="linux/arm64")]),
)
COMMANDS = st.one_of(
    HEARTBEATS,
    st.sampled_from([OFFLINE, DRAIN, ACTIVATE, DECOMMISSION, ForgetNode(node="n1")]),
    st.builds(LabelNode, node=st.just("n1"), labels=st.sampled_from([{}, {"rack": "a"}])),
)


@given_any(st.lists(COMMANDS, max_size=30))
def test_a_repetition_does_nothing_but_join(commands):
    """A hello after a decommission is no repetition: the agent was started anew."""
    state = given()
    for command in commands:
        try:
            state = NODE.fold(NODE.decide(state, command), state)
        except (NodeNotFoundError, NodePendingError, NodePhaseError):
            continue
        assert NODE.decide(state, command) == []


EVENTS = st.one_of(
    st.builds(NodeJoined, profile=st.just(PROFILE)),
    *(st.builds(kind) for kind in (NodeCameBack, NodeWentOffline, NodeDrained, NodeActivated, NodeDecommissioned)),
    st.builds(NodeInventoryChanged, modules=st.just((GREET,))),
)


@given_any(st.lists(EVENTS, max_size=15))
def test_events_in_any_order_fold(events):
    assert isinstance(NODE.fold(events).phase, NodePhase)
