"""A module that is in use is not removed: the plan refuses it by the newest heartbeats, the command carries the answer."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db.models import OuterRef, Subquery
from django.test import Client

from eventstore import database_now
from rollout.delivery.commands import commands_of
from rollout.messages import Action, Phase, ServerModule
from rollout.models import Liveness, NodeFacts, Operation, ShardMember
from rollout.process.advance import advance
from rollout.queries.explanations import of_node
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import promote_rollout, resume_rollout, retry_rollout
from tests import recorded_shards
from tests.recorded_fleet import (
    ALONE,
    differences,
    fleet,
    installed,
    inventory,
    phases,
    rollout,
    say,
    start,
)
from tests.recorded_modules import module_object
from tests.recorded_shards import master_of, replica_of

A, B = "n0000", "n0001"
REMOVAL = {"action": "remove", "module_name": "greet", "version": 1}
pytestmark = pytest.mark.django_db


def beat(name, calls=0, *, loaded=True, ours=True, state=ALONE):
    module = ServerModule(
        name="greet", version=1, ours=ours, recent_calls=calls, most_called="greet.hello", clients=("shop",)
    )
    facts = replace(state, run_id="a", modules=(module,))
    recorded_shards.say(recorded_shards.beat(name, facts, modules=[installed(loaded=loaded)]))


@pytest.fixture
def nodes():
    fleet(2)
    beat(A)
    beat(B)


def begin(client, **more):
    return client.post("/v2/rollouts", REMOVAL | {"nodes": [A]} | more, content_type="application/json")


@pytest.mark.parametrize("route", ["/v2/rollouts", "/v2/rollouts/plan"])
def test_a_module_that_is_used(nodes, admin, route):
    beat(A, 12)
    answer = admin.post(route, REMOVAL, content_type="application/json")
    assert (answer.status_code, answer.json()["error_code"]) == (409, "in_use")
    said = answer.json()["description"]
    assert (
        f"in the last 10 minutes on {A}. On {A}: 12 calls, most of them of greet.hello. Newest clients: shop." in said
    )
    assert '"even_if_used": true' in said


def test_the_console_names_its_own_field(nodes, alice):
    beat(A, 12)
    client = Client()
    client.force_login(alice)
    form = {
        "action": "remove",
        "activation": "load",
        "artifact": "greet/1",
        "scope": "all",
        "strategy.canary": "1",
        "even_if_used": "",
    }
    (refused,) = client.post("/admin/rollouts/start", form).context["form"].errors[""]
    assert refused.endswith("retry 10 minutes later, or select “Remove the module even if it is used” under More.")
    assert client.post("/admin/rollouts/start", form | {"even_if_used": "on"}).context["form"].plan


def test_a_module_that_is_not_used(nodes, admin):
    assert begin(admin).status_code == 202


def test_a_person_may_remove_it_all_the_same(nodes, admin):
    beat(A, 12)
    answer = begin(admin, even_if_used=True)
    assert answer.status_code == 202
    uid = answer.json()["uid"]
    assert admin.get(f"/v2/rollouts/{uid}").json()["even_if_used"] is True
    assert rollout(uid).even_if_used


def test_the_flag_is_for_removals_only(nodes, admin):
    answer = begin(admin, action="install", even_if_used=True)
    assert (answer.status_code, "even_if_used" in answer.content.decode()) == (400, True)


def test_calls_on_another_copy_of_its_shard(nodes, admin):
    beat(B, 3)
    assert begin(admin).status_code == 202, "a server of another shard"


def test_calls_on_a_copy(nodes, admin):
    ShardMember.objects.filter(node=A).update(shard="s", replicas=[B])
    ShardMember.objects.filter(node=B).update(shard="s", master=A)
    beat(B, 3)
    answer = begin(admin)
    assert (answer.status_code, f"10 minutes on {B}" in answer.json()["description"]) == (409, True)


@pytest.mark.parametrize(
    "state", [{"loaded": False}, {"ours": False}, {"calls": None}], ids=["files", "of another", "unknown"]
)
def test_what_says_nothing_against_it(nodes, admin, state):
    beat(A, **({"calls": 12} | state))
    assert begin(admin).status_code == 202


def test_old_facts_say_nothing(nodes, admin):
    beat(A, 12)
    NodeFacts.objects.update(reported_at=database_now() - timedelta(minutes=11))
    assert begin(admin).status_code == 202


def command_of(uid):
    incarnation = Liveness.objects.filter(node=OuterRef("node")).values("incarnation")
    rows = Operation.objects.filter(rollout=uid).annotate(incarnation=Subquery(incarnation))
    return next(command for _, command in commands_of(list(rows)))


def test_the_command_carries_it(nodes):
    assert not command_of(start(action=Action.REMOVE, nodes=(A,))).even_if_used
    uid = start(action=Action.REMOVE, nodes=(B,), even_if_used=True)
    assert command_of(uid).even_if_used
    say(uid, B, Phase.FAILED, inventory=inventory(installed()))
    assert command_of(retry_rollout(uid)).even_if_used


def test_a_rollback_removes_it_also_after_the_first_calls(db):
    fleet(1)
    uid = start()
    say(uid, A, inventory=inventory(installed()))
    command = command_of(roll_back_rollout(uid))
    assert (command.action, command.even_if_used) == (Action.REMOVE, True)


def test_the_document_shows_it(nodes, admin):
    for is_given in (True, False):
        uid = start(action=Action.REMOVE, nodes=(A if is_given else B,), even_if_used=is_given)
        assert admin.get(f"/v2/rollouts/{uid}").json()["even_if_used"] is is_given


COPIES = {A: master_of("a:2", addresses=("a:1",)), B: replica_of("a:1", addresses=("a:2",))}


def gated_removal(**more):
    """The uid of a removal that stands at its gate. The shard of A and B is in the wave after it."""
    fleet(3)
    for name, state in COPIES.items():
        beat(name, state=state)
    beat("n0002")
    careful = {"canary": 1, "gate": "manual", "max_parallel": "100%"}
    uid = start(action=Action.REMOVE, careful=careful, nodes=("n0002", B, A), **more)
    say(uid, "n0002", inventory=inventory())
    advance(uid)
    assert phases(uid) == {"n0002": "succeeded", A: "scheduled", B: "scheduled"}
    return uid


def test_calls_on_a_copy_after_the_plan(db):
    uid = gated_removal()
    beat(B, 3, state=COPIES[B])
    promote_rollout(uid)
    advance(uid)
    row = Operation.objects.get(rollout=uid, node=A)
    assert (row.phase, row.reason, row.releases) == ("failed", "in_use", 0)
    assert (
        f"in the last 10 minutes on {B}. On {B}: 3 calls, most of them of greet.hello. Newest clients: shop."
        in row.message
    )
    assert "in_use: The module's commands were called" in of_node(uid, A).document["summary"]
    assert (rollout(uid).phase, phases(uid)[B]) == ("paused", "scheduled")
    resume_rollout(uid)
    advance(uid)
    assert (phases(uid)[B], Operation.objects.filter(releases__gt=0).count()) == ("skipped", 1)
    assert differences() == {}


def test_a_person_repeats_it_after_the_calls(db):
    uid = gated_removal()
    beat(B, 3, state=COPIES[B])
    promote_rollout(uid)
    advance(uid)
    beat(B, state=COPIES[B])
    retry_rollout(uid)
    resume_rollout(uid)
    advance(uid)
    assert phases(uid)[A] == "queued"


def test_calls_after_the_plan_of_a_module_that_may_be_used(db):
    uid = gated_removal(even_if_used=True)
    beat(B, 3, state=COPIES[B])
    promote_rollout(uid)
    advance(uid)
    assert phases(uid)[A] == "queued"


@pytest.mark.parametrize("route", ["/v1/modules", "/v2/modules"])
def test_a_deletion_may_be_of_a_used_module(nodes, admin, route):
    module_object("greet", 1)
    uid = admin.get("/v1/modules").json()[0]["uid"]
    beat(A, 12)
    refused = admin.delete(f"{route}/{uid}")
    assert (refused.status_code, refused.json()["error_code"]) == (409, "in_use")
    assert admin.delete(f"{route}/{uid}?even_if_used=yes").status_code == 400
    answer = admin.delete(f"{route}/{uid}?even_if_used=true")
    started = rollout(answer.json()["action_uid"])
    assert (started.even_if_used, started.actor) == (True, "alice")
    assert admin.delete(f"{route}/{uid}").status_code == 409
