"""Adoption: the plan by the newest heartbeats, the commands, and what is refused."""

import msgspec
import pytest

from accounts.services import update_cluster_settings
from rollout.delivery import ingestion
from rollout.delivery.commands import commands_of
from rollout.domain.errors import RollbackOfAdoptionError
from rollout.messages import Action, Activation, Phase, ServerModule
from rollout.models import Operation
from rollout.process.advance import advance
from rollout.reconciliation.reconciler import reconcile
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import retry_rollout
from tests.recorded_fleet import ALONE, fleet, heartbeat_of, installed, inventory, rollout, say, start

A, B = "n0000", "n0001"
ADOPTION = {"action": "install", "module_name": "greet", "version": 1, "adopt": True}
#: The file of the artifact that `fleet` uploads.
SHA = "c1"
pytestmark = pytest.mark.django_db


def beat(node, **module):
    given = {"name": "greet", "version": 1, "path": "/opt/greet.so", "sha256": SHA, **module}
    facts = msgspec.to_builtins(ALONE)
    facts["modules"] = [msgspec.to_builtins(ServerModule(**given))]
    ingestion.record_heartbeats([heartbeat_of(node, other_modules=("greet",)) | {"facts": facts}])


@pytest.fixture
def nodes():
    fleet(2)
    beat(A)
    beat(B)


def planned(admin, **more):
    return admin.post("/v2/rollouts/plan", ADOPTION | more, content_type="application/json")


def skipped(admin):
    return {each["node"]: (each["reason"], each["message"]) for each in planned(admin).json()["skipped"]}


def test_it_works(nodes, admin):
    assert skipped(admin) == {}
    answer = admin.post("/v2/rollouts", ADOPTION, content_type="application/json")
    assert answer.status_code == 202
    uid = answer.json()["uid"]
    assert rollout(uid).adopt
    advance(uid)
    commands = [command for _, command in commands_of(list(Operation.objects.filter(rollout=uid, phase="queued")))]
    assert [(each.action, each.activation, each.adopt) for each in commands] == [
        (Action.INSTALL, Activation.LOAD, True)
    ]


@pytest.mark.parametrize(
    ("module", "reason", "words"),
    [
        ({"name": "other"}, "nothing_to_adopt", "has not loaded greet"),
        ({"ours": True}, "nothing_to_adopt", "is Modfleet's already"),
        ({"obstacle": "The line is on the server's command line."}, "persistence_conflict", "command line"),
        ({"sha256": ""}, "agent_too_old", "does not report its digest"),
        ({"sha256": "c2"}, "module_not_ours", "it is not the file of greet 1"),
        ({"version": 2}, "module_not_ours", "it is not the file of greet 1"),
        ({"bundled": True}, "bundled", "from its own package"),
    ],
)
def test_a_node_that_is_skipped(nodes, admin, module, reason, words):
    beat(A, **module)
    found = skipped(admin)
    assert list(found) == [A]
    assert (found[A][0], words in found[A][1]) == (reason, True)


def test_it_is_adopted_again_after_a_start_from_its_foreign_path(nodes, admin):
    uid = start(adopt=True)
    for each in (A, B):
        say(uid, each, inventory=inventory(installed()))
    assert set(skipped(admin)) == set()
    beat(A)
    beat(B, ours=True)
    assert {node: reason for node, (reason, _) in skipped(admin).items()} == {B: "nothing_to_adopt"}


def test_the_plan_hash_tells_it_from_an_installation(nodes, admin):
    assert planned(admin).json()["plan_hash"] != planned(admin, adopt=False).json()["plan_hash"]


@pytest.mark.parametrize(
    "more",
    [
        {"action": "remove"},
        {"activation": "files"},
        {"strategy": {"on_failure": "rollback"}},
        {"strategy": {"on_abort": "undo"}},
    ],
)
def test_a_request_that_would_unload_or_copy(nodes, admin, more):
    answer = planned(admin, **more)
    assert (answer.status_code, "adopt" in answer.content.decode()) == (400, True)


def test_a_retry_adopts_too(nodes):
    uid = start(adopt=True)
    say(uid, A, Phase.FAILED)
    say(uid, B, Phase.FAILED)
    assert rollout(retry_rollout(uid)).adopt


@pytest.mark.parametrize("has_ended", [False, True])
def test_it_is_not_rolled_back(nodes, admin, has_ended):
    uid = start(adopt=True)
    if has_ended:
        for each in (A, B):
            say(uid, each, inventory=inventory(installed()))
    with pytest.raises(RollbackOfAdoptionError):
        roll_back_rollout(uid)
    answer = admin.post(f"/v2/rollouts/{uid}/rollback", {}, content_type="application/json")
    assert (answer.status_code, answer.json()["error_code"]) == (409, "rollback_of_adoption")


def test_neither_the_reconciler_nor_drift_correction_unloads_it(nodes):
    """The server has started from the foreign path again, and another one loads what nobody asked for."""
    update_cluster_settings(correct_drift=True)
    uid = start(adopt=True)
    for each in (A, B):
        say(uid, each, inventory=inventory(installed()))
    before = set(Operation.objects.values_list("key", flat=True))
    ingestion.record_heartbeats([heartbeat_of(A, modules=[installed(loaded=False)])])
    ingestion.record_heartbeats([heartbeat_of(B, modules=[installed(), installed(2, "c2")])])
    reconcile()
    made = Operation.objects.exclude(key__in=before)
    assert {(each.node, each.action, each.activation) for each in made} == {(A, "install", "load")}
