"""After a rollout that has failed masters over, a rollout of its own makes them the masters again."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rollout.delivery.commands import commands_of
from rollout.domain.errors import NothingToFailBackError
from rollout.domain.request import RolloutRequest
from rollout.messages import Action, Failover, Phase, Reason, Replica, Restart, Way, Ways
from rollout.models import Liveness, Operation, Placement, Rollout
from rollout.planning.planner import plan_of
from rollout.process.advance import advance
from rollout.queries.explanations import of_node
from rollout.reconciliation.reconciler import reconcile
from rollout.services.failback import fail_back_rollout
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import retry_rollout
from tests.integration.rollout.shard_of_four import ALL_AT_ONCE
from tests.recorded_fleet import (
    differences,
    hear,
    installed,
    inventory,
    join,
    operation,
    phases,
    rollout,
    start,
    state_of,
    upload,
)
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, replica_of, say

pytestmark = [pytest.mark.django_db, pytest.mark.dialect]

NAMES = ("n1", "n2", "n3")
STOCK = {
    "enable_module_command": "no",
    "restart": "shutdown",
    "aof_enabled": True,
    "min_replicas_to_write": 0,
    "persistence": "rewrite",
    "failover": "command",
}


def shard(master="n1", modules=(), **more):
    """Heartbeats of a shard with this master."""
    others = [each for each in NAMES if each != master]
    addresses = {name: f"a:{name[1:]}" for name in NAMES}
    online = tuple(Replica(address=addresses[each], state="online") for each in others)
    above = addresses[master]
    state = master_of(*(addresses[each] for each in others), **STOCK, addresses=(above,))
    return [
        beat(master, replace(state, replicas=online), modules=modules, **more),
        *(beat(each, replica_of(above, **STOCK, addresses=(addresses[each],)), modules=modules) for each in others),
    ]


def fail_over(former="a:1", new="a:2"):
    return Restart(downtime_seconds=1.0, failover=Failover(way="command", former=former, new=new, pause_seconds=0.2))


def upgraded(**more: Any) -> str:
    """A rollout that has restarted all servers of the shard: n2 is the master since."""
    upload()
    join(*NAMES)
    say(*shard())
    asked: dict[str, Any] = {"careful": ALL_AT_ONCE, "ways": Ways.RESTART, "failback": True}
    uid = start(**(asked | more))
    for _ in NAMES:
        (name,) = [each for each, phase in phases(uid).items() if phase == "queued"]
        master = "n2" if name == "n1" else "n1"
        done = {"restart": fail_over()} if name == "n1" else {}
        answer(uid, name, inventory=inventory(installed()), **done)
        has = [each for each, phase in phases(uid).items() if phase == "succeeded"]
        if name != "n1":
            say(*(each for each in shard(master, [installed()]) if each["node"] in has))
            say(shard()[0])  # the next restart waits for what the master says after this one
        advance(uid)
    assert rollout(uid).phase == "succeeded"
    return uid


def roles_are(master, *, has_module=True):
    """All have reported it. This also takes the next steps of the rollouts."""
    say(*shard(master, [installed()] if has_module else []))


def follower(uid):
    advance(uid)
    return Rollout.objects.get(failback_of=uid)


def test_the_former_master_becomes_the_master_again():
    uid = upgraded()
    back = follower(uid)
    assert rollout(uid).failed_back_by == back.uid
    assert (back.title, back.action, back.origin) == ("fail back after install greet 1", "install", rollout(uid).origin)
    assert (back.requested_by, back.correlation_id) == (rollout(uid).requested_by, rollout(uid).correlation_id)
    row = operation(back.uid, "n2")  # it was the master at the last failover, whatever its newest heartbeat says
    assert (row.fails_back_to, row.way, row.yields, back.total) == ("n1", Way.RESTART, True, 1)
    advance(back.uid)
    assert operation(back.uid, "n2").phase == "scheduled"  # n2 says that it is a replica
    roles_are("n2")
    advance(back.uid)
    row = operation(back.uid, "n2")
    assert row.phase == "queued"
    ((_, command),) = commands_of(_annotated(row))
    assert (command.fails_back_to, command.package, command.action) == ("a:1", None, Action.INSTALL)
    assert command.expects
    assert (command.expects.role, command.pause_seconds) == ("master", 5.0)
    before = [state_of(name) for name in NAMES]
    answer(back.uid, "n2", restart=fail_over("a:2", "a:1"), inventory=inventory(installed()))
    roles_are("n1")
    advance(back.uid)
    assert rollout(back.uid).phase == "succeeded"
    assert [state_of(name) for name in NAMES] == before == [("load", "load", "in_sync")] * 3
    reported = operation(back.uid, "n2").restart
    assert reported
    assert reported["failover"]["new"] == "a:1"
    assert not Rollout.objects.filter(failback_of=back.uid).exists()
    assert differences() == {}


def _annotated(row):
    row.incarnation = ""
    return [row]


@pytest.mark.parametrize("more", [{"failback": False}, {"failback": True, "ways": Ways.LOAD}])
def test_it_is_off_by_default(more):
    """And a rollout that has failed over no master has none that follows."""
    upload()
    join("n1")
    uid = start(careful=ALL_AT_ONCE, **more)
    answer(uid, "n1", inventory=inventory(installed()))
    advance(uid)
    assert rollout(uid).phase == "succeeded"
    assert Rollout.objects.count() == 1


def test_no_failback_after_an_upgrade_without_it():
    uid = upgraded(failback=False)
    assert not Rollout.objects.exclude(failback_of="").exists()
    back = fail_back_rollout(uid)  # by hand
    assert (rollout(back).failback_of, rollout(uid).failed_back_by) == (uid, back)
    assert operation(back, "n2").fails_back_to == "n1"
    assert fail_back_rollout(uid) == back


def test_a_removal():
    back = follower(upgraded())
    roles_are("n2")
    answer(back.uid, "n2", restart=fail_over("a:2", "a:1"), inventory=inventory(installed()))
    roles_are("n1")
    removal = start(
        action=Action.REMOVE, careful=ALL_AT_ONCE, ways=Ways.RESTART, failback=True, even_if_used=True, released=True
    )
    for _ in NAMES:
        (name,) = [each for each, phase in phases(removal).items() if phase == "queued"]
        done = {"restart": fail_over()} if name == "n1" else {}
        answer(removal, name, inventory=inventory(), **done)
        has = {each for each, phase in phases(removal).items() if phase == "succeeded"}
        say(*(each for each in shard("n1") if each["node"] in has and name != "n1"))
        hear(*NAMES)
        advance(removal)
    assert rollout(removal).phase == "succeeded"
    last = follower(removal)
    roles_are("n2", has_module=False)
    advance(last.uid)
    assert operation(last.uid, "n2").phase == "queued"
    answer(last.uid, "n2", restart=fail_over("a:2", "a:1"), inventory=inventory())
    advance(last.uid)
    assert rollout(last.uid).phase == "succeeded"
    assert state_of("n2") in {None, ("absent", "absent", "in_sync")}


def test_a_person_was_faster():
    back = follower(upgraded())
    say(*shard("n1", [installed()]))
    advance(back.uid)
    row = operation(back.uid, "n2")
    assert (row.phase, row.reason) == ("skipped", Reason.ROLE_CHANGED)
    assert "n1 is the master again already" in row.message
    assert rollout(back.uid).phase == "succeeded"
    assert state_of("n2") == ("load", "load", "in_sync")


def test_what_was_said_before_it_was_asked_for_does_not_count():
    """The heartbeats from before the failover say that n1 is the master."""
    back = follower(upgraded())
    Operation.objects.filter(rollout=back.uid).update(scheduled_at=datetime(2100, 1, 1, tzinfo=UTC))
    say(*shard("n1", [installed()]))
    advance(back.uid)
    assert operation(back.uid, "n2").phase == "scheduled"


def former_master_is_silent():
    own, *others = shard("n2", [installed()])
    say(*others)
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    Liveness.objects.filter(node="n1").update(last_seen=long_ago, facts_at=long_ago)
    say(own)


def without_failover():
    _, *others = shard("n2", [installed()])
    state = master_of("a:1", "a:3", **(STOCK | {"failover": "none"}), addresses=("a:2",))
    say(*others, beat("n2", state, modules=[installed()]))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (former_master_is_silent, Reason.REPLICA_SILENT),
        (lambda: say(*shard("n3", [installed()])), Reason.FAILOVER_NOT_POSSIBLE),
        (without_failover, Reason.FAILOVER_NOT_POSSIBLE),
    ],
)
def test_it_waits_and_is_skipped(spoil, reason):
    back = follower(upgraded())
    spoil()
    Operation.objects.filter(rollout=back.uid).update(wait_noted_at=None, waiting_since=None)
    advance(back.uid)
    row = operation(back.uid, "n2")
    assert (row.phase, row.reason) == ("scheduled", reason)
    assert of_node(back.uid, "n2").document["summary"]
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    Operation.objects.filter(rollout=back.uid).update(waiting_since=long_ago)
    advance(back.uid)
    row = operation(back.uid, "n2")
    assert (row.phase, row.reason) == ("skipped", reason)
    assert rollout(back.uid).phase == "succeeded"


def test_a_former_master_without_the_version():
    back = follower(upgraded())
    say(beat("n1", replica_of("a:2", **STOCK, addresses=("a:1",))), *shard("n2", [installed()])[:1])
    advance(back.uid)
    row = operation(back.uid, "n2")
    assert (row.phase, row.reason) == ("skipped", Reason.REPLICA_LACKS_MODULE)


def test_its_agent_returns_it_and_skips_it():
    """Neither is a failure."""
    back = follower(upgraded())
    roles_are("n2")
    advance(back.uid)
    answer(back.uid, "n2", phase=Phase.SCHEDULED, reason=Reason.FAILOVER_NOT_POSSIBLE, message="n1 is behind.")
    assert operation(back.uid, "n2").phase == "scheduled"
    roles_are("n2")
    advance(back.uid)
    assert operation(back.uid, "n2").phase == "queued"
    answer(back.uid, "n2", phase=Phase.SKIPPED, reason=Reason.FAILOVER_NOT_POSSIBLE, inventory=inventory(installed()))
    advance(back.uid)
    assert (operation(back.uid, "n2").phase, rollout(back.uid).phase) == ("skipped", "succeeded")
    assert state_of("n2") == ("load", "load", "in_sync")


def test_a_failure_is_repeated_by_no_one():
    back = follower(upgraded())
    roles_are("n2")
    advance(back.uid)
    answer(back.uid, "n2", phase=Phase.FAILED, reason=Reason.SERVER_UNREACHABLE, inventory=inventory(installed()))
    advance(back.uid)
    assert rollout(back.uid).phase in {"failed", "aborted", "completed_with_failures"}
    assert operation(back.uid, "n2").attempt == 1
    assert not Placement.objects.filter(undone=True).exists()
    join("n2", modules=[installed()])
    reconcile()
    assert Operation.objects.filter(node="n2").count() == 2
    assert state_of("n2") == ("load", "load", "in_sync")


def test_it_waits_for_the_window(monkeypatch):
    opens: list[datetime] = []

    class Window:
        def opens_at(self, _):
            return opens[0] if opens else None

    monkeypatch.setattr("rollout.domain.rollout.releasable.parse_window", lambda _: Window())
    back = follower(upgraded(careful=ALL_AT_ONCE | {"window": "Sat 01:00-05:00 UTC"}))
    opens.append(datetime.now(UTC) + timedelta(hours=1))
    roles_are("n2")
    advance(back.uid)
    assert operation(back.uid, "n2").phase == "scheduled"
    assert "n1 becomes the master again" in of_node(back.uid, "n2").document["summary"]
    opens.clear()
    advance(back.uid)
    assert operation(back.uid, "n2").phase == "queued"


def test_its_strategy_waits_for_no_person():
    careful = ALL_AT_ONCE | {"gate": "manual", "on_failure": "rollback", "pause_seconds": 2.0}
    strategy = follower(upgraded(careful=careful)).strategy
    names = ("gate", "on_failure", "approval", "canary", "pause_seconds")
    assert [strategy[each] for each in names] == ["none", "abort", False, 0, 2.0]


def test_a_newer_rollout_takes_its_place():
    """It need not say that it supersedes it."""
    uid = upgraded()
    back = follower(uid)
    upload(version=2, content="c2")
    newer = start(version=2, ways=Ways.RESTART, careful=ALL_AT_ONCE)
    assert (operation(back.uid, "n2").phase, operation(back.uid, "n2").reason) == ("canceled", Reason.NEWER_ROLLOUT)
    assert operation(newer, "n2").phase in {"scheduled", "queued"}
    advance(back.uid)
    with pytest.raises(NothingToFailBackError):
        fail_back_rollout(uid)


def test_a_rollback_goes_before_it_and_does_not_fail_back():
    uid = upgraded()
    back = follower(uid)
    undo = roll_back_rollout(uid)
    assert operation(back.uid, "n2").phase == "canceled"
    assert sorted(phases(undo)) == ["n1", "n2", "n3"]
    assert (rollout(undo).failback, rollout(undo).rollback_of) == (False, uid)


def test_a_rollback_after_it_restores_all_nodes():
    uid = upgraded()
    back = follower(uid)
    roles_are("n2")
    advance(back.uid)
    answer(back.uid, "n2", restart=fail_over("a:2", "a:1"), inventory=inventory(installed()))
    roles_are("n1")
    advance(back.uid)
    undo = roll_back_rollout(uid)
    assert sorted(phases(undo)) == ["n1", "n2", "n3"]


def test_the_retry_of_a_rollout_fails_back_what_that_has_failed_over():
    upload()
    join(*NAMES)
    _, *replicas = shard("n1", [installed()])
    say(*replicas, *shard()[:1])
    uid = start(careful=ALL_AT_ONCE, ways=Ways.RESTART, nodes=("n1",), failback=True)
    answer(uid, "n1", phase=Phase.FAILED, reason=Reason.RESTART_FAILED, inventory=inventory(), restart=fail_over())
    advance(uid)
    assert not Rollout.objects.exclude(failback_of="").exists()
    again = retry_rollout(uid)
    say(*shard("n2", [installed()])[:1], *shard("n2")[1:2], *shard("n2", [installed()])[2:])
    advance(again)
    answer(again, "n1", inventory=inventory(installed()))
    assert rollout(again).failback
    assert operation(follower(again).uid, "n2").fails_back_to == "n1"


@pytest.mark.parametrize("new", ["b:9", "c:1"])
def test_a_master_that_is_no_node(new):
    """Or one of another shard, as a node that lies may say. Nothing is done."""
    upload()
    join(*NAMES, "other")
    say(beat("other", master_of(addresses=("c:1",))))
    _, *replicas = shard("n1", [installed()])
    say(*replicas, *shard()[:1])
    uid = start(careful=ALL_AT_ONCE, ways=Ways.RESTART, nodes=("n1",), failback=True)
    answer(uid, "n1", inventory=inventory(installed()), restart=fail_over(new=new))
    advance(uid)
    back = follower(uid)
    row = operation(back.uid, "n1")
    assert (row.phase, row.reason) == ("skipped", Reason.FAILOVER_NOT_POSSIBLE)
    assert new in row.message
    advance(back.uid)
    assert rollout(back.uid).phase == "succeeded"


def test_the_plan_says_it():
    upload()
    join(*NAMES)
    say(*shard())
    asked = RolloutRequest(action=Action.INSTALL, module_name="greet", version=1, ways=Ways.RESTART)
    plans = [plan_of(replace(asked, failback=failback)) for failback in (False, True)]
    assert len({each.hash for each in plans}) == 2
    assert {each.name: each.restart and each.restart.failover for each in plans[1].nodes}["n1"] == "command"


def test_over_http(admin):
    uid = upgraded(failback=False)
    shown = admin.get(f"/v2/rollouts/{uid}").json()
    assert (shown["failback"], shown["failback_of"], shown["failed_back_by"]) == (False, None, None)
    answered = admin.post(f"/v2/rollouts/{uid}/failback")
    back = answered.json()
    assert (answered.status_code, back["failback_of"]) == (202, uid)
    assert admin.get(f"/v2/rollouts/{uid}").json()["failed_back_by"] == back["uid"]
    row = admin.get(f"/v2/rollouts/{back['uid']}/nodes/n2").json()
    assert (row["node"], row["fails_back_to"]) == ("n2", "n1")
    refused = admin.post(f"/v2/rollouts/{back['uid']}/failback")
    assert (refused.status_code, refused.json()["error_code"]) == (409, "wrong_phase")
    refused = admin.post(f"/v2/rollouts/{back['uid']}/rollback")
    assert (refused.status_code, refused.json()["error_code"]) == (409, "nothing_to_roll_back")
    roles_are("n2")
    advance(back["uid"])
    answer(back["uid"], "n2", phase=Phase.FAILED, reason=Reason.LINK_DOWN, inventory=inventory(installed()))
    advance(back["uid"])
    for verb, code in (("rollback", "nothing_to_roll_back"), ("retry", "nothing_to_retry")):
        refused = admin.post(f"/v2/rollouts/{back['uid']}/{verb}")
        assert (refused.status_code, refused.json()["error_code"]) == (409, code)
    why = admin.get(f"/v2/rollouts/{uid}/why")
    (moved,) = why.json()["masters"]
    assert (moved["node"], moved["text"]) == ("n1", "n1: the master was a:1 and is a:2.")
    words = why.content.decode()
    assert f"Rollout {back['uid']} makes its former masters the masters again." in words
    again = admin.post(f"/v2/rollouts/{uid}/failback").json()
    assert again["uid"] != back["uid"]
    report = json.loads(b"".join(admin.get(f"/v2/rollouts/{uid}/report").streaming_content))
    (node,) = [each for each in report["nodes"] if each["node"] == "n1"]
    assert (node["restart"]["failover"]["former"], node["restart"]["failover"]["new"]) == ("a:1", "a:2")


@pytest.mark.parametrize("more", [{"activation": "load"}, {"activation": "files"}, {"adopt": True}])
def test_what_does_not_go_together(admin, more):
    body = {"action": "install", "module_name": "greet", "version": 1, "failback": True} | more
    refused = admin.post("/v2/rollouts/plan", body, format="json")
    assert (refused.status_code, refused.json()["error_code"]) == (400, "invalid_request")
    assert "failback" in refused.content.decode()
