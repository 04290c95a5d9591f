"""What several processes do at the same moment; on connections of their own, with real commits."""

from collections import Counter

import pytest

from eventstore import ConcurrencyError, append, read
from rollout.delivery import ingestion, outbox
from rollout.delivery.ingestion import reports
from rollout.delivery.outbox import publish_due
from rollout.domain.errors import RolloutInProgressError
from rollout.domain.placement.events import OperationReleased
from rollout.domain.rollout.events import NodesReleased, RolloutFinished
from rollout.messages import Phase
from rollout.models import Operation
from rollout.process import offline_nodes, timeouts
from rollout.process.advance import advance
from rollout.services.nodes import decommission_node, label_node
from tests import recorded_shards
from tests.plugins.databases import at_once
from tests.recorded_fleet import (
    differences,
    fleet,
    heartbeat_of,
    join,
    know,
    node,
    phases,
    report_of,
    rollout,
    say,
    start,
    upload,
)
from tests.recorded_shards import beat, master_of, replica_of

pytestmark = pytest.mark.usefixtures("committed_db")


def events_of(kind):
    return [each.event for each in read(event_classes=[kind])]


def test_of_two_rollouts_of_one_module_one_wins():
    fleet(3)

    def tried():
        try:
            return start(released=False)
        except RolloutInProgressError as error:
            return error

    outcomes = at_once(tried, tried)
    (uid,) = [each for each in outcomes if isinstance(each, str)]
    (error,) = [each for each in outcomes if not isinstance(each, str)]
    assert error.rollout == uid
    assert Operation.objects.count() == 3


def test_the_last_two_reports_at_the_same_moment_end_the_rollout():
    names = fleet(2)
    for _ in range(5):
        uid = start()
        reports = [report_of(uid, name) for name in names]
        at_once(*(lambda one=one: ingestion.record_reports([one]) for one in reports))
        assert rollout(uid).phase == "succeeded"
    assert len(events_of(RolloutFinished)) == 5


def test_many_that_advance_release_nothing_twice_and_not_too_much():
    fleet(8)
    uid = start(max_parallel=3, released=False)
    at_once(*[lambda: advance(uid)] * 6)
    assert Counter(phases(uid).values()) == {"queued": 3, "scheduled": 5}
    assert sum(len(each.nodes) for each in events_of(NodesReleased)) == len(events_of(OperationReleased)) == 3


def test_several_relays_publish_each_command_once(monkeypatch):
    names = fleet(12)
    start(max_parallel=12)
    sent = []
    monkeypatch.setattr(outbox, "_send", lambda command, _, **__: sent.append(command.node))
    monkeypatch.setattr(outbox, "BATCH", 3)
    at_once(*[publish_due] * 4)
    publish_due()
    assert sorted(sent) == names


def test_two_control_workers_with_the_same_nodes():
    names = fleet(6)
    uid = start()
    batches = [
        [report_of(uid, name, phase) for name in ordered for phase in (Phase.FETCHING, Phase.SUCCEEDED)]
        for ordered in (names, names[::-1])
    ]
    at_once(*(lambda batch=batch: ingestion.record_reports(batch) for batch in batches))
    assert (rollout(uid).phase, rollout(uid).succeeded) == ("succeeded", 6)
    assert differences() == {}


def test_two_control_workers_with_the_same_heartbeats():
    names = [f"n{number}" for number in range(10)]
    know(*names)
    heartbeats = [heartbeat_of(name, hello=True, server="redis") for name in names]
    at_once(
        *(lambda some=some: ingestion.record_heartbeats(some) for some in (heartbeats, heartbeats[::-1], heartbeats))
    )
    assert (node("n9").phase, node("n9").server) == ("online", "redis")
    assert differences() == {}


def test_a_conflict_is_tried_again(monkeypatch):
    names = fleet(2)
    uid = start()
    calls = []

    def once_refused(*appends):
        calls.append(appends)
        if len(calls) == 1:
            raise ConcurrencyError
        return append(*appends)

    monkeypatch.setattr(reports, "append", once_refused)
    ingestion.record_reports([report_of(uid, name) for name in names])
    assert rollout(uid).phase == "succeeded"


def test_silence_and_a_heartbeat_at_the_same_time():
    from tests.recorded_fleet import silence

    fleet(1)
    uid = start()
    for _ in range(5):
        silence("n0000")
        at_once(
            offline_nodes.declare_silent_nodes_offline,
            lambda: ingestion.record_heartbeats([heartbeat_of("n0000")]),
        )
        ingestion.record_heartbeats([heartbeat_of("n0000")])
        assert (node("n0000").phase, phases(uid)) == ("online", {"n0000": "queued"})


def test_a_node_that_leaves_while_a_rollout_starts_holds_nobody_up():
    for _ in range(5):
        fleet_names = ["a", "b"]
        know(*fleet_names)
        ingestion.record_heartbeats([heartbeat_of(name, hello=True) for name in fleet_names])
        if not Operation.objects.exists():
            fleet(0)
        uid, _ = at_once(lambda: start(released=False, supersede=True), lambda: decommission_node("a"))
        assert uid
        timeouts.end_operations_of_decommissioned_nodes()
        advance(uid)
        ingestion.record_reports([report_of(uid, "b")])
        assert rollout(uid).phase in {"succeeded", "completed_with_failures"}
    assert differences() == {}


SHARD = {
    "n1": master_of("a:2", "a:4", addresses=("a:1",)),
    "n2": replica_of("a:1", addresses=("a:2",)),
    "n4": replica_of("a:1", addresses=("a:4",)),
}


def one_shard():
    recorded_shards.say(*(beat(name, state) for name, state in SHARD.items()))


def one_host():
    recorded_shards.say(*(beat(name, host="h") for name in SHARD))


def two_zones():
    for name in SHARD:
        label_node(name, {"zone": name})


@pytest.mark.parametrize("related", [one_shard, one_host, two_zones])
def test_of_two_relays_that_have_both_decided_one_releases(race, related):
    """Two rollouts of two modules, on two nodes that are never changed together. Only the first rollout names its domain."""
    upload()
    upload("other")
    join(*SHARD)
    related()
    domain = {"domain": "zone"} if related is two_zones else {}
    for _ in range(5):
        first = start(nodes=("n2",), released=False, careful={"canary": 0, **domain})
        second = start(nodes=("n4",), module_name="other", released=False, careful={"canary": 0})
        race(lambda uid=first: advance(uid), lambda uid=second: advance(uid))
        for _ in range(2):
            advance(first)
            advance(second)
            (queued,) = Operation.objects.filter(phase=Phase.QUEUED)
            say(queued.rollout, queued.node)
        assert {rollout(first).phase, rollout(second).phase} == {"succeeded"}
    assert differences() == {}
