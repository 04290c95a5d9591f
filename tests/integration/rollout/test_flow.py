"""One rollout from its start to its end, as services and rows tell it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import to_builtins

from artifacts_app.errors import ArtifactNotFoundError
from eventstore import read
from rollout.delivery import ingestion
from rollout.domain.errors import (
    InvalidRolloutError,
    NoNodesError,
    NothingToRetryError,
    RolloutInProgressError,
    UnknownNodeError,
    WrongPhaseError,
)
from rollout.domain.placement.scheduling import LARGEST_GENERATION, LARGEST_LEAD
from rollout.messages import HEARTBEATS, Action, Inventory, Phase, Reason
from rollout.models import Liveness, Operation
from rollout.process import offline_nodes, timeouts
from rollout.process.advance import advance, advance_all
from rollout.queries import snapshot
from rollout.services.nodes import activate_node, decommission_node, drain_node
from rollout.services.rollouts import abort_rollout, retry_rollout
from rollout.transport import DROPPED
from tests.recorded_fleet import (
    PLATFORM,
    differences,
    fleet,
    grew,
    heartbeat_of,
    installed,
    join,
    know,
    node,
    operation,
    overdue,
    phases,
    report_of,
    rollout,
    say,
    silence,
    start,
    upload,
)

pytestmark = pytest.mark.django_db


def test_it_works():
    names = fleet(3)
    uid = start(max_parallel=2)
    assert sorted(phases(uid).values()) == ["queued", "queued", "scheduled"]
    for name in names:
        say(uid, name, Phase.FETCHING)
        say(uid, name, seconds=1.0)
    assert (rollout(uid).phase, rollout(uid).succeeded) == ("succeeded", 3)
    assert differences() == {}


def test_reports_may_come_again():
    (name,) = fleet(1)
    uid = start()
    said = report_of(uid, name)
    ingestion.record_reports([said])
    assert grew(lambda: ingestion.record_reports([said, said])) == 0


def test_a_batch_that_ends_a_rollout_twice_ends_it_once():
    names = fleet(2)
    uid = start()
    ingestion.record_reports([report_of(uid, name) for name in names for _ in range(3)])
    assert (rollout(uid).phase, rollout(uid).succeeded) == ("succeeded", 2)


def test_a_fleet_without_nodes():
    upload()
    with pytest.raises(NoNodesError):
        start()


def test_a_node_that_is_not_there():
    fleet(1)
    with pytest.raises(UnknownNodeError, match="x, y"):
        start(nodes=("y", "n0000", "x"))
    with pytest.raises(InvalidRolloutError):
        start(nodes=())


def test_a_module_without_artifact():
    join("n1")
    with pytest.raises(ArtifactNotFoundError):
        start()


def test_a_removal_needs_no_artifact():
    join("n1")
    assert phases(start(action=Action.REMOVE)) == {"n1": "queued"}


def test_a_node_of_another_platform_is_skipped():
    fleet(1)
    join("arm", platform="linux/arm64")
    uid = start()
    assert operation(uid, "arm").reason == Reason.INCOMPATIBLE_ARCH
    say(uid, "n0000")
    assert rollout(uid).phase == "succeeded"


def test_a_node_named_twice_counts_once():
    (name,) = fleet(1)
    assert rollout(start(nodes=(name, name))).total == 1


def test_two_rollouts_of_one_module():
    fleet(1)
    uid = start()
    with pytest.raises(RolloutInProgressError, match=uid):
        start()


def test_a_newer_one_takes_over():
    first, second = fleet(2)
    upload(version=2, content="c2")
    old = start(max_parallel=1)
    new = start(version=2, supersede=True)
    assert phases(old) == {first: "queued", second: "canceled"}
    assert phases(new) == {first: "scheduled", second: "queued"}
    say(old, first)
    advance(new)
    assert (rollout(old).phase, rollout(old).reason) == ("superseded", "newer_rollout")
    assert phases(new)[first] == "queued"
    assert differences() == {}


def test_an_abort_lets_run_what_runs():
    first, second = fleet(2)
    uid = start(max_parallel=1)
    abort_rollout(uid)
    assert phases(uid) == {first: "queued", second: "canceled"}
    assert rollout(uid).phase == "aborting"
    say(uid, first)
    assert rollout(uid).phase == "aborted"
    abort_rollout(uid)


def test_a_retry_in_an_unfinished_rollout_is_another_attempt():
    first, second = fleet(2)
    uid = start()
    say(uid, first, Phase.FAILED, reason=Reason.DISK_FULL)
    assert retry_rollout(uid) == uid
    assert (operation(uid, first).attempt, operation(uid, first).phase, operation(uid, first).reason) == (
        2,
        "queued",
        "",
    )
    say(uid, first)
    say(uid, second)
    assert rollout(uid).phase == "succeeded"
    assert differences() == {}


def test_a_retry_of_an_ended_rollout_is_a_new_one_of_the_failed_nodes():
    first, second = fleet(2)
    uid = start()
    say(uid, first, Phase.FAILED)
    say(uid, second)
    again = retry_rollout(uid)
    assert (rollout(again).retry_of, list(phases(again))) == (uid, [first])


def test_there_is_nothing_to_retry():
    first, _ = fleet(2)
    uid = start()
    with pytest.raises(NothingToRetryError):
        retry_rollout(uid)
    say(uid, first, Phase.FAILED)
    retry_rollout(uid)
    with pytest.raises(NothingToRetryError):
        retry_rollout(uid)


def test_a_retry_leaves_out_who_has_left():
    first, second = fleet(2)
    uid = start()
    say(uid, first, Phase.FAILED)
    decommission_node(first)
    with pytest.raises(NothingToRetryError):
        retry_rollout(uid)
    say(uid, second, Phase.FAILED)
    assert list(phases(retry_rollout(uid))) == [second]


def test_no_retry_while_it_is_aborted():
    first, _ = fleet(2)
    uid = start()
    say(uid, first, Phase.FAILED)
    abort_rollout(uid)
    with pytest.raises(WrongPhaseError, match="aborting"):
        retry_rollout(uid)


def test_what_takes_too_long_times_out_and_a_late_answer_stands_beside_it():
    (name,) = fleet(1)
    uid = start()
    overdue(name)
    assert timeouts.end_overdue_operations() == 1
    assert (rollout(uid).phase, operation(uid, name).reason) == ("failed", "node_deadline")
    say(uid, name)
    assert operation(uid, name).phase == "timed_out"
    assert [each.type for each in read()][-1] == "operation.reported_late.v1"


def test_timeouts_of_many_nodes_are_one_transaction(django_assert_max_num_queries):
    names = fleet(30)
    uid = start(max_parallel=30)
    overdue(*names)
    with django_assert_max_num_queries(40):
        timeouts.end_overdue_operations()
    assert rollout(uid).timed_out == 30


def test_silence_gives_back_what_has_not_started_and_frees_its_slot():
    first, second = fleet(2)
    uid = start(max_parallel=1)
    silence(first)
    assert offline_nodes.declare_silent_nodes_offline() == [first]
    assert phases(uid) == {first: "scheduled", second: "queued"}
    ingestion.record_heartbeats([heartbeat_of(first)])
    assert phases(uid)[first] == "scheduled", "its slot is taken"
    say(uid, second)
    assert phases(uid)[first] == "queued"


def test_what_runs_on_a_silent_node_waits_for_its_deadline():
    (name,) = fleet(1)
    uid = start()
    say(uid, name, Phase.LOADING)
    silence(name)
    offline_nodes.declare_silent_nodes_offline()
    assert phases(uid) == {name: "loading"}
    overdue(name)
    timeouts.end_overdue_operations()
    assert phases(uid) == {name: "timed_out"}


def test_what_was_given_back_and_runs_after_all_still_has_a_deadline():
    (name,) = fleet(1)
    uid = start()
    silence(name)
    offline_nodes.declare_silent_nodes_offline()
    assert operation(uid, name).deadline_at is None
    say(uid, name, Phase.FETCHING)
    assert operation(uid, name).deadline_at is not None
    assert differences() == {}


def test_a_node_that_comes_back_gets_the_newest_of_what_it_missed():
    (name,) = fleet(1)
    upload(version=2, content="c2")
    old = start()
    silence(name)
    offline_nodes.declare_silent_nodes_offline()
    new = start(version=2, supersede=True)
    assert (phases(old), phases(new)) == ({name: "canceled"}, {name: "scheduled"})
    ingestion.record_heartbeats([heartbeat_of(name)])
    assert phases(new) == {name: "queued"}


def test_a_draining_node_is_skipped_and_what_it_had_to_come_waits():
    first, second = fleet(2)
    uid = start(max_parallel=1)
    drain_node(second)
    say(uid, first)
    assert phases(uid)[second] == "scheduled"
    activate_node(second)
    assert phases(uid)[second] == "queued"
    drain_node(first)
    other = start(nodes=(first,))
    assert (rollout(other).phase, operation(other, first).reason) == ("succeeded", "node_draining")
    assert operation(other, first).message == f"{first} is draining: activate it, and start another rollout for it."


def test_rollouts_go_on_without_a_node_that_left():
    first, second, third = fleet(3)
    upload(version=2, content="c2")
    old = start(max_parallel=1)
    new = start(version=2, supersede=True)  # on the first node it waits behind the old one
    decommission_node(first)
    assert (phases(old)[first], phases(new)[first]) == ("canceled", "canceled")
    assert rollout(old).phase == "superseded"
    for name in (second, third):
        say(new, name)
    assert rollout(new).phase == "succeeded"
    assert differences() == {}


def test_an_operation_scheduled_while_its_node_left_is_ended():
    (name,) = fleet(1)
    uid = start(released=False)
    node(name).__class__.objects.filter(name=name).update(phase="decommissioned")
    assert timeouts.end_operations_of_decommissioned_nodes() == 1
    assert rollout(uid).phase == "aborted"


def test_a_node_joins_again_when_its_agent_is_restarted():
    (name,) = fleet(1)
    decommission_node(name)
    ingestion.record_heartbeats([heartbeat_of(name)])
    assert node(name).phase == "decommissioned"
    ingestion.record_heartbeats([heartbeat_of(name, hello=True)])
    assert node(name).phase == "online"
    assert phases(start()) == {name: "queued"}


def test_one_rollout_that_cannot_move_keeps_no_other_from_it(monkeypatch, caplog):
    fleet(2)
    bad = start(nodes=("n0000",), released=False)
    good = start(nodes=("n0001",), released=False)
    real = snapshot.snapshot_of

    def broken(uid, state, *, now):
        if uid == bad:
            raise RuntimeError("boom")
        return real(uid, state, now=now)

    monkeypatch.setattr("rollout.process.advance.snapshot_of", broken)
    advance_all([bad, good])
    assert phases(good) == {"n0001": "queued"}
    assert bad in caplog.text


def test_a_generation_follows_the_node_s_journal():
    upload()
    join("n1", generations={"greet": 40})
    assert operation(start(), "n1").generation == 41


def test_a_generation_that_cannot_be_raises_ours_a_little():
    upload()
    join("n1", generations={"greet": 2**31 - 2, "other": 7})
    assert Liveness.objects.get(node="n1").generations == {"other": 7}
    join("n2", generations={"greet": LARGEST_GENERATION})
    uid = start()
    assert (operation(uid, "n1").generation, operation(uid, "n2").generation) == (1, LARGEST_LEAD + 1)
    say(uid, "n1")
    say(uid, "n2")
    assert rollout(uid).phase == "succeeded"
    assert operation(start(version=1), "n2").generation == 2 * LARGEST_LEAD + 2


# --- Bad messages -----------------------------------------------------------------------------------------------------

BAD: list[Any] = [
    None,
    7,
    "text",
    [],
    {},
    {"rollout": "x"},
    {"rollout": 1, "node": [], "phase": None},
]


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "dancing"},
        {"node": "a:b"},
        {"node": "n" * 200},
        {"node": "a\0"},
        {"module_name": "../x"},
        {"generation": -1},
        {"generation": 10**30},
        {"generation": "1"},
        {"attempt": 2**31},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"message": ["x"]},
        {"rollout": "r" * 100},
        {"inventory": {"sequence": 1, "modules": [{"module_name": "x"}]}},
    ],
)
def test_a_bad_report_keeps_no_other_from_being_recorded(change):
    (name,) = fleet(1)
    uid = start()
    good = report_of(uid, name)
    ingestion.record_reports([*BAD, {**good, **change}, good])
    assert rollout(uid).phase == "succeeded"


def test_a_report_of_an_unknown_rollout_is_recorded_as_rejected_once():
    (name,) = fleet(1)
    uid = start()
    stray = {**report_of(uid, name), "rollout": "who", "generation": 7}
    assert grew(lambda: ingestion.record_reports([stray, stray])) == 1
    assert grew(lambda: ingestion.record_reports([stray])) == 0
    assert differences() == {}


def test_a_message_holds_what_databases_store():
    (name,) = fleet(1)
    uid = start()
    say(uid, name, Phase.FAILED, message="a\0b\ud800c" + "x" * 10_000)
    assert operation(uid, name).message.startswith("ab?c")
    assert len(operation(uid, name).message) == 4000


@pytest.mark.parametrize(
    "change",
    [
        {"interval_seconds": 0},
        {"interval_seconds": float("nan")},
        {"generations": {"greet": 2**40}},
        {"node": ""},
        {"profile": {"platform": "p" * 100}},
        {"profile": {"platform": "nul\0"}},
    ],
)
def test_a_bad_beat_keeps_no_other_from_being_recorded(change):
    know("bad", "good")
    ingestion.record_heartbeats(
        [*BAD, {**heartbeat_of("bad", server="redis"), **change}, heartbeat_of("good", server="redis")]
    )
    assert (node("bad").server, node("good").server) == ("", "redis")
    assert not Liveness.objects.filter(node="bad").exists()
    assert node("good").phase == "online"


@pytest.mark.dialect
@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
@pytest.mark.parametrize(
    "of",
    [
        lambda text: {"profile": {"platform": text}},
        lambda text: {"profile": {"platform": "p", "operating_system": text}},
        lambda text: {"profile": {"platform": "p", "server": text}},
        lambda text: {"profile": {"platform": "p", "server_version": text}},
        lambda text: {"profile": {"platform": "p", "role": text}},
        lambda text: {"profile": {"platform": "p", "api_hosts": [text]}},
        lambda text: {"profile": {"platform": "p", "labels": {text: ""}}},
        lambda text: {"profile": {"platform": "p", "labels": {"a": text}}},
        lambda text: {"inventory": to_builtins(Inventory(sequence=10**9, modules=(installed(content=text),)))},
    ],
)
def test_what_no_database_stores_is_dropped_before_the_others_are_recorded(of, text):
    """Else a node could have each batch recorded one by one."""
    know("bad", "good")
    DROPPED.take()
    ingestion.record_heartbeats([{**heartbeat_of("bad", hello=True), **of(text)}, heartbeat_of("good", hello=True)])
    assert DROPPED.take() == {(HEARTBEATS, "malformed"): 1}
    assert list(Liveness.objects.values_list("node", flat=True)) == ["good"]


# --- Heartbeats ------------------------------------------------------------------------------------------------------------


def test_a_beat_that_changes_nothing_is_no_event_and_costs_the_same_for_any_number(django_assert_num_queries):
    fleet(40)
    for count in (3, 40):
        heartbeats = [heartbeat_of(f"n{number:04d}") for number in range(count)]
        with django_assert_num_queries(
            11
        ):  # keys, nodes, modules, clock, life three times, facts, shards, and the transaction's two
            assert ingestion.record_heartbeats(heartbeats) is False


def test_a_hello_is_kept_when_a_plain_beat_follows():
    know("n1")
    ingestion.record_heartbeats([heartbeat_of("n1", hello=True), heartbeat_of("n1")])
    assert Liveness.objects.get(node="n1").hello_at is not None
    decommission_node("n1")
    ingestion.record_heartbeats([heartbeat_of("n1", hello=True), heartbeat_of("n1")])
    assert node("n1").phase == "online"


def test_the_newest_beat_counts_whatever_the_order():
    know("n1")
    older, newer = heartbeat_of("n1", server="redis"), heartbeat_of("n1", server="valkey")
    ingestion.record_heartbeats([newer, older])
    assert node("n1").server == "valkey"


def test_a_heartbeat_of_a_stranger_is_dropped_and_counted():
    DROPPED.take()
    assert grew(lambda: ingestion.record_heartbeats([heartbeat_of("n1", hello=True), heartbeat_of("n2")])) == 0
    assert DROPPED.take() == {(HEARTBEATS, "unknown_node"): 2}
    assert not Liveness.objects.exists()


def test_a_hello_says_that_there_may_be_something_to_send():
    know("n1")
    assert ingestion.record_heartbeats([heartbeat_of("n1", server="redis")]) is True, "it changed"
    assert ingestion.record_heartbeats([heartbeat_of("n1", server="redis")]) is False
    assert ingestion.record_heartbeats([heartbeat_of("n1", hello=True, server="redis")]) is True


def test_each_node_is_judged_by_its_own_interval():
    join("n1")
    know("slow")
    ingestion.record_heartbeats([{**heartbeat_of("slow", hello=True), "interval_seconds": 900.0}])
    Liveness.objects.update(last_seen=datetime(2020, 1, 1, tzinfo=UTC))
    assert offline_nodes.declare_silent_nodes_offline(heard_seconds=89) == []
    assert offline_nodes.declare_silent_nodes_offline(heard_seconds=91) == ["n1"]
    assert offline_nodes.declare_silent_nodes_offline(heard_seconds=2701) == ["slow"]


def test_operations_of_a_rollout_are_those_of_its_nodes():
    fleet(3)
    uid = start()
    assert Operation.objects.filter(rollout=uid).count() == rollout(uid).total == 3
    assert node("n0000").platform == PLATFORM


def test_a_report_is_a_sign_of_life():
    (name,) = fleet(1)
    uid = start()
    say(uid, name, Phase.LOADING)
    silence(name)
    offline_nodes.declare_silent_nodes_offline()
    say(uid, name)
    assert (node(name).phase, rollout(uid).phase) == ("online", "succeeded")
    assert offline_nodes.declare_silent_nodes_offline() == []
    assert differences() == {}


def test_a_report_of_a_node_that_was_decommissioned_does_not_bring_it_back():
    (name,) = fleet(1)
    uid = start()
    decommission_node(name)
    say(uid, name)
    assert node(name).phase == "decommissioned"
