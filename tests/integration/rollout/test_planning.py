"""What a plan says, and that a start does just that."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from eventstore import append, load_state, read
from rollout.delivery import ingestion
from rollout.domain.errors import InvalidRolloutError, NoMatchError
from rollout.domain.placement.commands import End
from rollout.domain.placement.events import OperationScheduled
from rollout.domain.request import AT_ONCE, RolloutRequest
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import RolloutFinished, RolloutPhase, RolloutStarted, rollout_stream
from rollout.domain.selector import Selector
from rollout.domain.strategy import Strategy
from rollout.messages import Action, Activation, Phase, Reason
from rollout.planning.planner import plan_of
from rollout.process import offline_nodes
from rollout.process.placements import placement_changes
from rollout.services.nodes import decommission_node, drain_node
from rollout.services.rollouts import retry_rollout
from rollout.services.start import start_rollout
from tests.recorded_fleet import (
    differences,
    fleet,
    heartbeat_of,
    installed,
    join,
    operation,
    rollout,
    say,
    silence,
    start,
    upload,
)
from tests.recorded_modules import module_object, package

pytestmark = pytest.mark.django_db

REQUEST = RolloutRequest(action=Action.INSTALL, module_name="greet", version=1)


def planned(**changes):
    return plan_of(replace(REQUEST, **changes))


def waves(plan):
    return [[each.name for each in nodes] for nodes in plan.waves()]


def skips(plan):
    return {each.name: each.reason for each in plan.skipped}


def has(name, *modules, **profile):
    ingestion.record_heartbeats([heartbeat_of(name, modules=modules, **profile)])


# --- Waves ------------------------------------------------------------------------------------------------------------


def test_waves_are_filled_by_name():
    fleet(6)
    assert waves(planned(strategy=Strategy(waves=(2,)))) == [["n0000"], ["n0001", "n0002"], ["n0003", "n0004", "n0005"]]


def test_waves_are_filled_in_the_order_in_which_nodes_are_named():
    fleet(3)
    assert waves(planned(nodes=("n0002", "n0000", "n0002", "n0001"))) == [["n0002"], ["n0000", "n0001"]]


def test_the_canary_is_online_and_does_not_have_it_yet():
    fleet(4)
    silence("n0000")
    offline_nodes.declare_silent_nodes_offline()
    has("n0001", installed())
    assert waves(planned()) == [["n0002"], ["n0000", "n0001", "n0003"]]
    assert waves(planned(strategy=Strategy(canary=3))) == [["n0002", "n0003", "n0001"], ["n0000"]]


def test_without_a_canary_the_order_stays():
    fleet(2)
    has("n0000", installed())
    assert waves(planned(strategy=Strategy(canary=0, waves=(1,)))) == [["n0000"], ["n0001"]]


def test_skipped_nodes_count_in_no_wave():
    fleet(4)
    drain_node("n0000")
    plan = planned(strategy=Strategy(canary="50%"))
    assert waves(plan) == [["n0001", "n0002"], ["n0003"]]
    assert (plan.total, plan.wave_sizes) == (4, (2, 1))


# --- Who is skipped ---------------------------------------------------------------------------------------------------


def test_a_draining_node_is_skipped():
    fleet(2)
    drain_node("n0001")
    assert skips(planned()) == {"n0001": "node_draining"}
    assert skips(planned(action=Action.REMOVE)) == {"n0001": "node_draining"}


def test_a_platform_without_a_build_is_skipped():
    fleet(1)
    join("arm", platform="linux/aarch64")
    plan = planned()
    assert skips(plan) == {"arm": "incompatible_arch"}
    assert plan.skipped[0].message == "arm is linux/aarch64; there are builds for linux/x86_64."


@pytest.mark.parametrize(
    ("least", "skipped"),
    [("7.2.4", {"old"}), ("7.4", {"old", "valkey"}), ("8.0", {"old", "valkey", "new"}), ("", set())],
)
def test_a_server_that_is_too_old_is_skipped_and_valkey_counts_as_redis_7_2_4(least, skipped):
    package("greet", min_redis_version=least)
    join("old", server="redis", server_version="6.2.14")
    join("new", server="redis", server_version="7.4.1")
    join("valkey", server="valkey", server_version="9.1.2")
    join("unknown")
    plan = planned()
    assert skips(plan) == dict.fromkeys(skipped, "incompatible_redis_version")


def test_the_module_object_limits_what_its_package_does_not():
    upload()
    module_object("greet", min_redis_version="8.0", commands=[{"command_name": "greet.hello"}])
    join("n1", server="redis", server_version="7.2")
    (skipped,) = planned().skipped
    assert skipped.message == "greet 1 needs Redis 8.0 or newer; n1 runs redis 7.2, which counts as Redis 7.2."


# --- What is moved, and what is expected ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "activation", "size", "expected"),
    [
        ((), "load", 10, None),
        ((installed(),), "load", 0, "already_installed"),
        ((installed(),), "files", 0, "already_installed"),
        ((installed(loaded=False),), "load", 0, None),
        ((installed(loaded=False),), "files", 0, "already_installed"),
        ((installed(content="other"),), "load", 10, None),
        ((installed(2),), "load", 10, None),
    ],
)
def test_what_is_there_is_not_moved(there, activation, size, expected):
    fleet(1)
    has("n0000", *there)
    (node,) = planned(activation=Activation(activation)).nodes
    assert (node.size, node.expected, node.content_sha256) == (size, expected, "c1")


def test_a_removal_moves_nothing():
    join("n1", "n2")
    has("n1", installed())
    plan = planned(action=Action.REMOVE)
    assert [(each.name, each.size, each.expected, each.content_sha256) for each in plan.nodes] == [
        ("n1", 0, None, ""),
        ("n2", 0, "not_installed", ""),
    ]


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [3, 4, "100%", "67%"])
def test_a_min_healthy_that_leaves_no_node_to_work_on_is_refused(amount):
    fleet(3)
    with pytest.raises(InvalidRolloutError, match=r"^strategy\.min_healthy: keeps"):
        planned(strategy=Strategy(min_healthy=amount))
    assert planned(strategy=Strategy(min_healthy=2)).total == 3


def test_a_selector_that_matches_nothing_is_refused():
    fleet(1)
    with pytest.raises(NoMatchError):
        planned(selector=Selector(names=("x*",)))


def test_nodes_that_have_left_are_not_selected():
    fleet(2)
    decommission_node("n0000")
    plan = planned(selector=Selector(names=("*",)))
    assert waves(plan) == [["n0001"]]
    assert plan.request.named


# --- Start ------------------------------------------------------------------------------------------------------------


def test_what_is_started_is_what_was_planned():
    fleet(4)
    drain_node("n0000")
    plan = planned()
    uid = start_rollout(REQUEST)
    (started,) = [each.event for each in read(event_classes=[RolloutStarted])]
    scheduled = [each.event for each in read(event_classes=[OperationScheduled])]
    assert (started.total, started.waves, started.named, started.needs) == (4, (1, 2), False, ())
    assert [(each.node, each.ordinal, each.wave) for each in scheduled] == [
        ("n0001", 0, 0),
        ("n0002", 1, 1),
        ("n0003", 2, 1),
        ("n0000", 3, -1),
    ]
    assert tuple(each.node for each in scheduled) == plan.names
    assert (operation(uid, "n0000").phase, operation(uid, "n0000").reason) == ("skipped", "node_draining")
    assert not any(differences().values())


def test_a_selector_makes_a_named_rollout():
    fleet(2)
    uid = start(selector=Selector(names=("n0001",)))
    assert (rollout(uid).named, rollout(uid).total) == (True, 1)


def test_a_retry_waits_for_no_approval_no_time_and_no_more_healthy_nodes_than_there_are():
    fleet(2)
    strategy = Strategy(min_healthy="50%", approval=True, start_at=datetime(2030, 1, 1, tzinfo=UTC))
    uid = start_rollout(replace(REQUEST, strategy=strategy))
    end(uid, n0000=Phase.CANCELED, n0001=Phase.FAILED)
    retried = rollout(retry_rollout(uid))
    assert (retried.retry_of, retried.total, retried.strategy["approval"]) == (uid, 1, False)
    assert (retried.strategy["start_at"], retried.strategy["min_healthy"]) == (None, 0)


def end(uid, **phases):
    """The rollout has ended, and its nodes in these phases."""
    ends = [
        End(rollout=uid, node=name, module_name="greet", phase=phase, reason=Reason.MANUAL)
        for name, phase in phases.items()
    ]
    finished = RolloutFinished(rollout=uid, phase=RolloutPhase.FAILED)
    append(load_state(rollout_stream(uid), ROLLOUT).append([finished]), *placement_changes(ends))


def test_calls_that_know_no_strategy_go_on_after_a_failure():
    assert (AT_ONCE.wave_sizes(3), AT_ONCE.tolerated(3)) == ((3,), 3)


@pytest.mark.parametrize("count", [5, 50])
def test_planning_costs_the_same_for_any_number_of_nodes(count, django_assert_num_queries):
    fleet(count)
    # The nodes, their agents, the builds, the module object, what is there, what is under way, other modules there and coming,
    # servers that refuse MODULE LOAD, and twice what is known of the builds.
    with django_assert_num_queries(12):
        planned()
    with django_assert_num_queries(12):
        planned(selector=Selector(names=("n*",)))
    # The nodes, their agents, their shards; what else is there and on its way; what is under way, and there; servers that refuse
    # MODULE LOAD.
    with django_assert_num_queries(8):
        planned(action=Action.REMOVE)


@pytest.mark.parametrize("count", [5, 50])
def test_finding_taken_commands_costs_the_same_for_any_number_of_nodes(count, django_assert_num_queries):
    load_rival(fleet(count)[1:])
    with django_assert_num_queries(14):  # two more for the other modules' builds and objects
        assert len(planned().skipped) == count - 1


def test_starting_reads_as_often_for_any_number_of_nodes():
    upload()
    reads = []
    for count in (5, 50):
        join(*(f"n{count}-{number}" for number in range(count)))
        with CaptureQueriesContext(connection) as queries:
            start_rollout(replace(REQUEST, selector=Selector(names=(f"n{count}-*",))))
        reads.append(len([each for each in queries if each["sql"].startswith("SELECT")]))
    assert reads[0] == reads[1]


# --- Commands of other modules ----------------------------------------------------------------------------------------


def load_rival(names, *, activation=Activation.LOAD, command="GREET.hello"):
    upload("rival", content="r1", command=command)
    uid = start(module_name="rival", nodes=tuple(names), activation=activation)
    for name in names:
        say(uid, name)
    return uid


def test_a_node_whose_server_has_the_command_is_skipped():
    first, second = fleet(2)
    load_rival([first])
    plan = planned()
    assert skips(plan) == {first: Reason.COMMAND_NAME_TAKEN}
    (skipped,) = plan.skipped
    assert skipped.message == f"{first} has loaded rival 1, which also has greet.hello. Remove rival there first."
    assert waves(plan) == [[second]]


def test_a_module_that_is_about_to_be_loaded_counts():
    first, _ = fleet(2)
    upload("rival", content="r1", command="greet.hello")
    start(module_name="rival", nodes=(first,))
    assert skips(planned()) == {first: Reason.COMMAND_NAME_TAKEN}


def test_files_and_other_commands_do_not_count():
    names = fleet(2)
    load_rival(names, activation=Activation.FILES)
    upload("neighbor", content="n1")
    start(module_name="neighbor")
    assert skips(planned()) == {}


def test_files_are_installed_beside_the_command():
    names = fleet(2)
    load_rival(names)
    assert skips(planned(activation=Activation.FILES)) == {}


def test_a_removed_module_does_not_count():
    names = fleet(2)
    load_rival(names)
    uid = start(module_name="rival", action=Action.REMOVE, nodes=tuple(names))
    for name in names:
        say(uid, name)
    assert skips(planned()) == {}
