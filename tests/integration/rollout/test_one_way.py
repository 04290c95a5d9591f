"""Rollouts whose former version cannot read what the new one writes: they wait for a person, and are not rolled back."""

from datetime import timedelta

import pytest

from eventstore import database_now
from rollout.delivery.commands import commands_of
from rollout.domain.errors import NotGatedError, OneWayError
from rollout.domain.retries import Retries
from rollout.domain.rollout.events import OneWayFound, RolloutPhase
from rollout.domain.rollout.one_way import what_is_one_way
from rollout.domain.strategy import Gate, OnFailure
from rollout.messages import Phase, Reason, WayBack, WayBackResult, Ways
from rollout.models import Operation, Rollout
from rollout.process.advance import advance
from rollout.queries.rollouts import decision_needed
from rollout.queries.statistics import waits_for_person
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import abort_rollout, pause_rollout, promote_rollout
from tests.integration.rollout.test_restarts import DURABLE, stock
from tests.recorded_fleet import differences, fleet, installed, inventory, operation, phases, rollout, upload
from tests.recorded_fleet import say as report
from tests.recorded_fleet import start as start_rollout
from tests.recorded_shards import master_of, say

pytestmark = pytest.mark.django_db

OPEN = WayBack(result=WayBackResult.OPEN, former_version=1, tried=20)
CLOSED = WayBack(
    result=WayBackResult.CLOSED, message="It does not start", former_version=1, tried=20, kept_file="/data/kept.rdb"
)
UNKNOWN = WayBack(result=WayBackResult.UNKNOWN, message="There are no keys", former_version=1)
NAMES = [f"n{number:04}" for number in range(4)]


@pytest.fixture
def servers():
    """Four stock servers with version 1 of a module, each alone."""
    fleet(4)
    upload(version=2, content="c2")
    say(*(stock(each, master_of(), modules=[installed()], **DURABLE) for each in NAMES))


@pytest.fixture
def why(admin):
    """Why a rollout, or one of its nodes, is in its phase."""

    def summary(uid, node=""):
        path = f"/v2/rollouts/{uid}/nodes/{node}/why" if node else f"/v2/rollouts/{uid}/why"
        return admin.get(path).json()["summary"]

    return summary


def start(**careful):
    careful = {"canary": 0, "retries": Retries(limit=0), "settle_seconds": 0.0, **careful}
    return start_rollout(version=2, ways=Ways.AUTO, may_interrupt=True, careful=careful)


def command(uid, node):
    ((_, found),) = commands_of(list(Operation.objects.filter(rollout=uid, node=node)))
    return found


def succeed(uid, node, way_back=None):
    report(uid, node, inventory=inventory(installed(2, "c2")), way_back=way_back)
    advance(uid)


def one_way(uid):
    return rollout(uid).one_way or {}


def released(uid):
    return [node for node, phase in sorted(phases(uid).items()) if phase != Phase.SCHEDULED]


def test_the_plan_says_what_cannot_be_undone(servers, admin):
    def planned():
        body = {"action": "install", "module_name": "greet", "version": 2, "may_interrupt": True, "supersede": True}
        answer = admin.post("/v2/rollouts/plan", body, content_type="application/json").json()
        assert answer["irreversible"][0].endswith("n0003 are disconnected.")
        return answer["irreversible"][1:]

    assert planned()[0].startswith(
        "The first node tries if version 1 can read what version 2 writes. If not, or if that is not known,"
    )
    uid = start()
    succeed(uid, NAMES[0], UNKNOWN)
    promote_rollout(uid)
    assert planned()[0].startswith("The first node tries")
    succeed(uid, NAMES[1], OPEN)
    assert planned() == []
    succeed(uid, NAMES[2], CLOSED)
    assert planned()[0].startswith("Version 1 cannot read what version 2 has written on n0002")


def test_the_first_node_changes_alone(servers, why):
    uid = start()
    assert released(uid) == NAMES[:1]
    assert "read what the new one writes" in why(uid, NAMES[1])
    succeed(uid, NAMES[0], OPEN)
    assert released(uid) == NAMES
    assert rollout(uid).one_way is None


def test_a_first_installation_does_not_wait():
    fleet(3)
    say(*(stock(each, master_of(), **DURABLE) for each in NAMES[:3]))
    assert released(start_rollout(ways=Ways.AUTO, may_interrupt=True)) == NAMES[:3]


@pytest.mark.parametrize("way_back", [CLOSED, UNKNOWN])
def test_it_waits_until_a_person_promotes_it(servers, admin, why, way_back):
    uid = start()
    succeed(uid, NAMES[0], way_back)
    assert released(uid) == NAMES[:1]
    assert rollout(uid).phase == RolloutPhase.RUNNING
    shown = admin.get(f"/v2/rollouts/{uid}").json()["one_way"]
    assert (shown["node"], shown["result"], shown["promoted"]) == (NAMES[0], way_back.result, False)
    assert way_back.message in why(uid)
    waits = admin.get(f"/v2/rollouts/{uid}/why").json()["waits_for"]
    assert [each["what"] for each in waits] == ["one_way"]  # no slot is lacking
    assert "promotes" in decision_needed(rollout(uid))
    assert list(waits_for_person()) == ["one_way"]
    answer = admin.post(f"/v2/rollouts/{uid}/promote", {}, content_type="application/json")
    assert (answer.status_code, answer.json()["one_way"]["promoted"]) == (202, True)
    assert released(uid) == NAMES
    assert (
        f"There is no rollback. {what_is_one_way(OneWayFound(rollout=uid, node=NAMES[0], way_back=way_back), 2)}"
        in why(uid)
    )
    promote_rollout(uid)  # again
    assert differences() == {}


def test_no_server_goes_back_by_itself_then(servers):
    """Not if it is promoted either: the others may get values from the first one."""
    uid = start()
    assert not command(uid, NAMES[0]).one_way
    succeed(uid, NAMES[0], CLOSED)
    promote_rollout(uid)
    assert command(uid, NAMES[1]).one_way


def test_there_is_no_rollback(servers, admin):
    uid = start()
    succeed(uid, NAMES[0], CLOSED)
    for act in (lambda: None, lambda: promote_rollout(uid), lambda: abort_rollout(uid)):
        act()
        answer = admin.post(f"/v2/rollouts/{uid}/rollback", {}, content_type="application/json")
        assert (answer.status_code, answer.json()["error_code"]) == (409, "one_way")
    words = answer.json()["description"]
    for each in ("Version 1 cannot read what version 2 has written on n0000", "/data/kept.rdb", "may_discard_data"):
        assert each in words


def test_nor_after_the_last_node(servers, why):
    """It has ended, so it does not wait, but it is one-way."""
    uid = start()
    succeed(uid, NAMES[0], OPEN)
    for each in NAMES[1:3]:
        succeed(uid, each, OPEN)
    succeed(uid, NAMES[3], CLOSED)
    assert rollout(uid).phase == RolloutPhase.SUCCEEDED
    assert "There is no rollback. Version 1 cannot read what version 2 has written on n0003" in why(uid)
    with pytest.raises(OneWayError):
        roll_back_rollout(uid)


def test_where_it_was_open_once_unknown_does_not_count(servers):
    uid = start()
    succeed(uid, NAMES[0], OPEN)
    succeed(uid, NAMES[1], UNKNOWN)
    assert rollout(uid).one_way is None
    succeed(uid, NAMES[2], CLOSED)
    assert one_way(uid)["node"] == NAMES[2]


def test_it_is_found_while_the_rollout_is_paused(servers):
    uid = start()
    pause_rollout(uid)
    succeed(uid, NAMES[0], CLOSED)
    with pytest.raises(OneWayError):
        roll_back_rollout(uid)
    promote_rollout(uid)
    assert (rollout(uid).phase, one_way(uid)["promoted"]) == (RolloutPhase.PAUSED, True)


def test_a_failure_pauses_it_instead_of_a_rollback(servers):
    uid = start(on_failure=OnFailure.ROLLBACK, max_failures=0)
    succeed(uid, NAMES[0], CLOSED)
    promote_rollout(uid)
    report(uid, NAMES[1], Phase.FAILED, reason=Reason.LOAD_FAILED)
    advance(uid)
    assert (rollout(uid).phase, rollout(uid).reason) == (RolloutPhase.PAUSED, Reason.ERROR_THRESHOLD)


def test_one_promotion_opens_the_gate_too(servers):
    uid = start(canary=1, gate=Gate.MANUAL)
    succeed(uid, NAMES[0], CLOSED)
    assert [each["phase"] for each in rollout(uid).waves] == ["gated", "pending"]
    promote_rollout(uid)
    assert (one_way(uid)["promoted"], operation(uid, NAMES[1]).phase) == (True, Phase.QUEUED)


def test_a_canary_without_a_gate(servers):
    uid = start(canary=1)
    succeed(uid, NAMES[0], CLOSED)
    assert released(uid) == NAMES[:1]
    with pytest.raises(NotGatedError):
        promote_rollout(uid, wave=1)
    promote_rollout(uid)
    assert len(released(uid)) > 1


def test_no_deadline_runs_while_it_waits(servers):
    uid = start(progress_deadline_seconds=30.0)
    succeed(uid, NAMES[0], CLOSED)
    Rollout.objects.update(progressed_at=database_now() - timedelta(hours=10))
    advance(uid)
    assert rollout(uid).phase == RolloutPhase.RUNNING
    promote_rollout(uid)
    assert (rollout(uid).phase, released(uid)) == (RolloutPhase.RUNNING, NAMES)
