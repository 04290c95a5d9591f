"""The rules of one node."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from rollout.domain.errors import (
    NodeExistsError,
    NodeIdentityError,
    NodeNotFoundError,
    NodePendingError,
    NodePhaseError,
    NodeRekeyError,
)
from rollout.domain.node.commands import (
    AcceptNode,
    ActivateNode,
    AddKey,
    DeclareOffline,
    DecommissionNode,
    DrainNode,
    EndDrift,
    EnrollNode,
    ForgetNode,
    LabelNode,
    RecordContact,
    RecordDrift,
    RecordDuplicate,
    RecordHeartbeat,
    RecordInventory,
    RequestRekey,
    RetireOtherKeys,
    RevokeNode,
    SetAddress,
)
from rollout.domain.node.decider import MOST_DRIFTS, MOST_KEYS_FOR_REQUEST, NODE
from rollout.domain.node.events import (
    NodeAccepted,
    NodeActivated,
    NodeAddressSet,
    NodeCameBack,
    NodeConfigChangedOutside,
    NodeDecommissioned,
    NodeDegraded,
    NodeDrained,
    NodeDrifted,
    NodeDuplicateEnded,
    NodeDuplicateFound,
    NodeEnrolled,
    NodeInventoryChanged,
    NodeJoined,
    NodeKeyAdded,
    NodeKeyRetired,
    NodeLabelled,
    NodePersistenceResolved,
    NodeProfileChanged,
    NodeRecovered,
    NodeRekeyRequested,
    NodeRevoked,
    NodeWentOffline,
)
from rollout.domain.node.health import Degradation
from rollout.domain.node.pace import Change
from rollout.domain.node.state import Identity, NodeKey, NodePhase
from rollout.messages import ChangeKind, ConfigurationChange, InstalledModule, Inventory, NodeProfile
from rollout.projections.nodes import NodeFold
from rollout.signing import key_id

PROFILE = NodeProfile(platform="linux/x86_64")
GREET = InstalledModule(module_name="greet", version=1, content_sha256="c", loaded=True)


def heartbeat(*, hello=False, profile=PROFILE, sequence=1, modules=(), **more):
    inventory = Inventory(sequence=sequence, modules=modules)
    return RecordHeartbeat(node="n1", hello=hello, profile=profile, inventory=inventory, **more)


HELLO = heartbeat(hello=True)
OFFLINE, DRAIN = DeclareOffline(node="n1"), DrainNode(node="n1")
ACTIVATE, DECOMMISSION = ActivateNode(node="n1"), DecommissionNode(node="n1")


def enroll(key="k1", *, password="h1", labels=None, accepted=True, is_silent=False):
    return EnrollNode(
        node="n1",
        token="t",
        public_key=key,
        broker_password_sha256=password,
        labels=labels or {},
        accepted=accepted,
        is_silent=is_silent,
    )


ENROLL = enroll()


def given(*commands):
    """The state of a node that is enrolled, after these commands."""
    return told(ENROLL, *commands)


def told(*commands):
    """The state of a node after these commands."""
    state = NODE.initial
    for command in commands:
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


def test_an_address_replaces_the_one_before():
    command = SetAddress(node="n1", address="a:1")
    assert kinds(given(HELLO), command) == [NodeAddressSet]
    assert kinds(given(HELLO, command), command) == []
    assert given(HELLO, command, SetAddress(node="n1", address="")).address == ""
    assert given(HELLO, command, DECOMMISSION, heartbeat(hello=True)).address == ""


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


@pytest.mark.parametrize(
    "command", [DRAIN, ACTIVATE, DECOMMISSION, LabelNode(node="n1", labels={}), SetAddress(node="n1", address="a:1")]
)
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


@pytest.mark.parametrize(
    "command", [DRAIN, ACTIVATE, LabelNode(node="n1", labels={}), SetAddress(node="n1", address="")]
)
def test_a_decommissioned_node_takes_no_orders(command):
    with pytest.raises(NodePhaseError):
        NODE.decide(given(HELLO, DECOMMISSION), command)


def test_a_decommission_twice_is_one():
    assert kinds(given(HELLO), DECOMMISSION) == [NodeDecommissioned]
    assert kinds(given(HELLO, DECOMMISSION), DECOMMISSION) == []


def drift(name, *, desired="absent", digest="d1"):
    return RecordDrift(node="n1", module_name=name, version=1, desired=desired, observed="load", content_sha256=digest)


def test_a_node_has_few_open_drifts_that_nobody_has_caused():
    """A node may report any modules, and others with each heartbeat."""
    state = given(HELLO, *(drift(f"foreign{number}") for number in range(MOST_DRIFTS)))
    assert len(state.drifts) == MOST_DRIFTS
    assert kinds(state, drift("one-more")) == []
    assert kinds(state, drift("foreign1", digest="d2")) == kinds(state, drift("greet", desired="load")) == [NodeDrifted]
    ended = NODE.fold(NODE.decide(state, EndDrift(node="n1", module_name="foreign1", version=1)), state)
    assert kinds(ended, drift("one-more")) == [NodeDrifted]


# --- Identity ---------------------------------------------------------------------------------------------------------

#: The node joined before messages were signed.
UNSIGNED = NODE.fold([NodeJoined(node="n1", profile=PROFILE)])
PENDING = told(enroll(accepted=False))
ACCEPT = AcceptNode(node="n1", key=key_id("k1"))
REVOKE, REKEY = RevokeNode(node="n1"), RequestRekey(node="n1")
ADD = AddKey(node="n1", public_key="k2", broker_password_sha256="h2")
USED = RetireOtherKeys(node="n1", public_key="k2")
FOUND, ENDED = RecordDuplicate(node="n1", is_duplicate=True), RecordDuplicate(node="n1", is_duplicate=False)


def keys(state):
    return [(each.public_key, each.broker_password_sha256) for each in state.keys]


def test_a_node_is_enrolled_once():
    assert kinds(NODE.initial, ENROLL) == [NodeEnrolled]
    assert (given().identity, keys(given()), given().phase) == (Identity.SIGNED, [("k1", "h1")], NodePhase.PENDING)
    assert kinds(given(), ENROLL) == kinds(given(HELLO), ENROLL) == []
    assert kinds(given(HELLO), enroll(labels={"zone": "a"}, accepted=False)) == [], "its key alone counts"


def test_a_node_that_a_person_must_accept_does_not_join_before():
    assert (PENDING.identity, PENDING.phase) == (Identity.PENDING, NodePhase.PENDING)
    assert kinds(PENDING, HELLO) == []
    assert kinds(PENDING, enroll(accepted=False)) == []
    assert kinds(PENDING, ACCEPT) == [NodeAccepted]
    assert kinds(told(enroll(accepted=False), ACCEPT), HELLO) == [NodeJoined]
    assert kinds(given(), ACCEPT) == []


def test_the_labels_of_the_token_are_the_node_s():
    assert given(enroll(password="h2", labels={"zone": "a"})).labels == {"zone": "a"}
    state = told(enroll(labels={"zone": "a"}), HELLO)
    assert state.labels == {"zone": "a"}
    moved = told(
        enroll(labels={"zone": "a", "rack": "1"}),
        HELLO,
        LabelNode(node="n1", labels={"zone": "b", "tier": "x"}),
        enroll("k2", labels={"rack": "2"}, is_silent=True),
    )
    assert moved.labels == {"zone": "b", "tier": "x", "rack": "2"}


@pytest.mark.parametrize("joined", [(), (HELLO,), (HELLO, OFFLINE), (HELLO, DRAIN)])
def test_another_key_joins_only_when_the_node_is_silent(joined):
    state = given(*joined)
    with pytest.raises(NodeExistsError, match="Another agent speaks for n1"):
        NODE.decide(state, enroll("k2"))
    assert kinds(state, enroll("k2", is_silent=True)) == [NodeEnrolled]
    again = given(*joined, enroll("k2", password="h2", is_silent=True))
    assert (keys(again), again.phase, again.profile) == ([("k2", "h2")], state.phase, state.profile)


def test_the_same_key_may_have_a_new_password_at_any_time():
    """An installation was interrupted before its password was stored."""
    assert kinds(given(HELLO), enroll(password="h9")) == [NodeEnrolled]
    assert keys(given(HELLO, enroll(password="h9"))) == [("k1", "h9")]


def test_a_key_that_nobody_accepted_is_no_reason_to_refuse_another():
    assert kinds(PENDING, enroll("k2")) == [NodeEnrolled]
    assert keys(told(enroll(accepted=False), enroll("k2", password="h2", accepted=False))) == [("k2", "h2")]


def test_a_node_without_a_key_gets_one_while_it_is_heard():
    assert UNSIGNED.identity is Identity.UNSIGNED
    assert kinds(UNSIGNED, ENROLL) == [NodeEnrolled]
    state = NODE.fold(NODE.decide(UNSIGNED, ENROLL), UNSIGNED)
    assert (state.identity, state.phase, state.profile) == (Identity.SIGNED, NodePhase.ONLINE, PROFILE)


def test_a_node_from_before_signatures_still_says_what_has_changed():
    assert kinds(UNSIGNED, heartbeat(modules=(GREET,))) == [NodeInventoryChanged]


@pytest.mark.parametrize("command", [ACCEPT, REKEY, ADD])
def test_a_node_without_a_key_has_nothing_to_accept_or_replace(command):
    with pytest.raises(NodeIdentityError, match="The identity of n1 is unsigned: the node must join first"):
        NODE.decide(UNSIGNED, command)


@pytest.mark.parametrize("command", [REKEY, ADD])
def test_a_pending_node_replaces_no_key(command):
    with pytest.raises(NodeIdentityError, match="is pending"):
        NODE.decide(PENDING, command)


def test_a_rekey_is_asked_for_once_and_has_an_end():
    assert kinds(given(HELLO), REKEY) == [NodeRekeyRequested]
    assert kinds(given(HELLO, REKEY), REKEY) == []
    assert given(HELLO, REKEY, ADD).rekey_requested
    state = given(HELLO, REKEY, ADD, USED)
    assert (state.rekey_requested, kinds(state, REKEY)) == (False, [NodeRekeyRequested])


def test_a_node_adds_only_a_key_that_was_requested():
    for state in (given(HELLO), given(HELLO, REKEY, ADD, USED), given(HELLO, REKEY, enroll(password="h3"))):
        with pytest.raises(NodeRekeyError):
            NODE.decide(state, replace(ADD, public_key="k3"))


def test_a_node_adds_few_keys_for_a_request():
    """Otherwise it could fill the log."""
    state = given(HELLO, REKEY)
    for number in range(MOST_KEYS_FOR_REQUEST):
        assert kinds(state, REKEY) == []
        state = NODE.fold(NODE.decide(state, replace(ADD, public_key=f"new-{number}")), state)
    with pytest.raises(NodeRekeyError):
        NODE.decide(state, ADD)
    again = NODE.fold(NODE.decide(state, REKEY), state)
    assert kinds(again, ADD) == [NodeKeyAdded]


def test_two_keys_are_valid_until_the_new_one_is_used():
    assert kinds(given(HELLO, REKEY), ADD) == [NodeKeyAdded]
    both = given(HELLO, REKEY, ADD)
    assert (keys(both), kinds(both, ADD)) == ([("k1", "h1"), ("k2", "h2")], [])
    assert NODE.decide(both, USED) == [NodeKeyRetired(node="n1", public_key="k1")]
    used = given(HELLO, REKEY, ADD, USED)
    assert (keys(used), kinds(used, USED), kinds(used, ADD)) == ([("k2", "h2")], [], [])


def test_the_former_key_may_win_too():
    """The answer to the new one was lost, and the node still uses its old one."""
    assert NODE.decide(given(HELLO, REKEY, ADD), RetireOtherKeys(node="n1", public_key="k1")) == [
        NodeKeyRetired(node="n1", public_key="k2")
    ]


def test_a_new_key_replaces_one_that_was_never_used():
    third = AddKey(node="n1", public_key="k3", broker_password_sha256="h3")
    assert keys(given(HELLO, REKEY, ADD, third)) == [("k1", "h1"), ("k3", "h3")]


def test_the_key_in_use_may_get_a_new_password():
    state = given(REKEY, AddKey(node="n1", public_key="k1", broker_password_sha256="h9"))
    assert keys(state) == [("k1", "h9")]


@pytest.mark.parametrize("state", [given(HELLO), given(HELLO, REVOKE), PENDING, UNSIGNED])
def test_a_key_that_is_none_of_the_node_s_ends_no_other(state):
    """The node may be revoked after its message was verified."""
    assert kinds(state, USED) == []


def test_a_node_may_join_anew_between_two_keys():
    assert kinds(given(HELLO, REKEY, ADD), enroll("k2", password="h2")) == []
    assert keys(given(HELLO, REKEY, ADD, enroll("k3", password="h3", is_silent=True))) == [("k3", "h3")]


@pytest.mark.parametrize("state", [given(), given(HELLO), given(HELLO, REKEY, ADD), PENDING, UNSIGNED])
def test_a_revoked_node_is_believed_in_nothing(state):
    assert kinds(state, REVOKE) == [NodeRevoked]
    revoked = NODE.fold(NODE.decide(state, REVOKE), state)
    assert (revoked.identity, revoked.keys, revoked.online, revoked.rekey_requested) == (
        Identity.REVOKED,
        (),
        False,
        False,
    )
    assert kinds(revoked, REVOKE) == kinds(revoked, HELLO) == kinds(revoked, OFFLINE) == []
    for command in (ACCEPT, REKEY, ADD):
        with pytest.raises(NodeIdentityError, match="is revoked"):
            NODE.decide(revoked, command)


def test_a_revoked_node_joins_again_with_a_token_alone():
    state = given(HELLO, LabelNode(node="n1", labels={"rack": "a"}), DRAIN, REVOKE)
    assert kinds(state, enroll("k2")) == [NodeEnrolled]
    again = given(HELLO, LabelNode(node="n1", labels={"rack": "a"}), DRAIN, REVOKE, enroll("k2"))
    assert (again.identity, again.phase, again.labels) == (Identity.SIGNED, NodePhase.OFFLINE, {"rack": "a"})
    assert kinds(again, HELLO) == [NodeCameBack]


def test_a_decommissioned_node_joins_again_with_its_key_or_with_another():
    left = given(
        HELLO, heartbeat(sequence=5, modules=(GREET,)), LabelNode(node="n1", labels={"rack": "a"}), DECOMMISSION
    )
    assert kinds(left, heartbeat(hello=True, sequence=6, modules=(GREET,))) == [NodeJoined]
    for command in (ENROLL, enroll("k2", labels={"zone": "b"})):
        assert kinds(left, command) == [NodeEnrolled]
    again = NODE.fold(NODE.decide(left, enroll("k2", labels={"zone": "b"})), left)
    assert (again.phase, again.labels, again.sequence) == (NodePhase.PENDING, {"zone": "b"}, 5)
    assert kinds(again, heartbeat(hello=True, sequence=6, modules=(GREET,))) == [NodeJoined]


def test_a_duplicate_is_found_and_ends_once():
    assert kinds(given(HELLO), FOUND) == [NodeDuplicateFound]
    assert kinds(given(HELLO, FOUND), FOUND) == kinds(given(HELLO), ENDED) == []
    assert kinds(given(HELLO, FOUND), ENDED) == [NodeDuplicateEnded]
    assert not given(HELLO, FOUND, ENDED).is_duplicate
    assert not given(HELLO, FOUND, enroll("k2", is_silent=True)).is_duplicate, "only the new key is heard"


def test_a_change_of_the_configuration_is_recorded_once():
    first = ConfigurationChange(id="1", kind=ChangeKind.OUTSIDE, at=1.0, message="a")
    second = ConfigurationChange(id="2", kind=ChangeKind.RESOLVED, at=2.0, message="b")
    state = given(HELLO)
    assert kinds(state, heartbeat(configuration_changes=(first,))) == [NodeConfigChangedOutside]
    assert kinds(state, heartbeat(configuration_changes=(first,), changes=frozenset())) == []
    state = given(HELLO, heartbeat(configuration_changes=(first,)))
    assert kinds(state, heartbeat(configuration_changes=(first, second))) == [NodePersistenceResolved]


@pytest.mark.parametrize("command", [ACCEPT, REVOKE, REKEY, ADD, USED, FOUND])
def test_a_stranger_has_no_identity(command):
    with pytest.raises(NodeNotFoundError):
        NODE.decide(NODE.initial, command)


@pytest.mark.parametrize("state", [NODE.initial, PENDING, given()])
def test_a_node_that_has_not_joined_does_not_come_back(state):
    assert kinds(state, RecordContact(node="n1")) == []


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
    st.sampled_from([ACCEPT, REVOKE, REKEY, ADD, USED, FOUND, ENDED]),
    st.builds(
        enroll,
        st.sampled_from(["k1", "k2", "k3"]),
        labels=st.sampled_from([{}, {"zone": "a"}]),
        accepted=st.booleans(),
        is_silent=st.booleans(),
    ),
)
REFUSALS = (
    NodeExistsError,
    NodeIdentityError,
    NodeNotFoundError,
    NodePendingError,
    NodePhaseError,
    NodeRekeyError,
)


@given_any(st.lists(COMMANDS, max_size=30))
def test_a_repetition_does_nothing_but_join(commands):
    """A hello after a decommission is no repetition: the agent was started anew."""
    state = given()
    for command in commands:
        try:
            state = NODE.fold(NODE.decide(state, command), state)
        except REFUSALS:
            continue
        assert NODE.decide(state, command) == []


@given_any(st.lists(COMMANDS, max_size=30), st.booleans())
def test_rows_are_as_the_rules_see_them(commands, is_unsigned):
    state, fold = NODE.initial, NodeFold({}, [], [])
    events: list[Any] = [NodeJoined(node="n1", profile=PROFILE)] if is_unsigned else []
    for number, command in enumerate([ENROLL, *commands]):
        if not events:
            try:
                events = [*NODE.decide(state, command)]
            except REFUSALS:
                continue
        for event in events:
            recorded: Any = SimpleNamespace(event=event, position=number, event_id=None, recorded_at=None)
            fold.apply(recorded)
            fold.finished_nodes()
        state, events = NODE.fold(events, state), []
        row = fold.nodes["n1"]
        assert (row.phase, row.online, row.draining, row.labels) == (
            state.phase,
            state.online,
            state.draining,
            state.labels,
        )
        assert (row.identity, row.rekey_requested, row.duplicate) == (
            state.identity,
            state.rekey_requested,
            state.is_duplicate,
        )
        assert [NodeKey(public_key=key, broker_password_sha256=password) for key, password in row.keys] == [*state.keys]


EVENTS = st.one_of(
    st.builds(NodeJoined, profile=st.just(PROFILE)),
    *(st.builds(kind) for kind in (NodeCameBack, NodeWentOffline, NodeDrained, NodeActivated, NodeDecommissioned)),
    *(st.builds(kind) for kind in (NodeEnrolled, NodeAccepted, NodeKeyAdded, NodeKeyRetired, NodeRevoked)),
    st.builds(NodeInventoryChanged, modules=st.just((GREET,))),
)


@given_any(st.lists(EVENTS, max_size=15))
def test_events_in_any_order_fold(events):
    assert isinstance(NODE.fold(events).phase, NodePhase)
