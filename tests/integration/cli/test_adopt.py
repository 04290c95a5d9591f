"""`modfleet adopt` against the API's real server."""

import json

import msgspec
import pytest

from rollout.delivery import ingestion
from rollout.messages import ServerModule
from rollout.models import Operation, Rollout
from tests.recorded_fleet import ALONE, heartbeat_of

pytestmark = pytest.mark.usefixtures("control_database")


@pytest.fixture
def control_database(control, django_db_blocker):
    with django_db_blocker.unblock():
        yield


def beat(node, *modules, **more):
    """The node's server has loaded these modules from foreign paths."""
    facts = msgspec.to_builtins(ALONE) | {
        "modules": [
            msgspec.to_builtins(ServerModule(**{"version": 1, "path": f"/opt/{name}.so", "name": name, **more}))
            for name in modules
        ]
    }
    ingestion.record_heartbeats([heartbeat_of(node) | {"facts": facts}])


@pytest.fixture
def loaded(module):
    """n1 has the artifact's file, n2 another one, n3 the same one from a line that the agent may not write."""
    beat("n1", module, sha256="c1", line="/etc/redis/redis.conf:7")
    beat("n2", module, sha256="c2")
    beat("n3", module, sha256="c1", line="the command line", obstacle="The line is on the server's command line.")
    return module


def plans(document):
    return {each["node"]: each["plan"] for each in document["modules"]}


def test_it_works(run, loaded):
    document = json.loads(run("adopt", "--json").stdout)
    found = plans(document)
    assert found["n1"] == "adopt: replace its line"
    assert found["n2"].startswith("skip: module_not_ours: ")
    assert found["n3"].startswith("skip: persistence_conflict: ")
    (made,) = document["rollouts"]
    assert Rollout.objects.get(uid=made["uid"]).adopt
    assert dict(Operation.objects.filter(rollout=made["uid"]).values_list("node", "phase"))["n2"] == "skipped"


def test_a_dry_run_starts_nothing(run, loaded):
    shown = run("adopt", "--dry-run", "--module", loaded)
    assert (shown.exit_code, "/etc/redis/redis.conf:7" in shown.stdout) == (0, True)
    assert f"/opt/{loaded}.so" in shown.stdout
    assert not Rollout.objects.filter(module_name=loaded).exists()


def test_only_these_nodes(run, loaded):
    document = json.loads(run("adopt", "n2", "--json").stdout)
    assert (list(plans(document)), document["rollouts"]) == (["n2"], [])


def test_a_person_sees_the_rollout(run, loaded):
    shown = run("adopt", "n1", "--yes")
    uid = Rollout.objects.get(module_name=loaded).uid
    assert (shown.exit_code, f"modfleet rollout watch {uid}" in shown.stdout) == (0, True)


def test_a_module_without_an_artifact(run):
    beat("n1", "unheard", sha256="c1")
    document = json.loads(run("adopt", "n1", "--json").stdout)
    assert "modfleet push FILE.zip" in plans(document)["n1"]


def test_nothing_is_foreign(run):
    beat("n1")
    assert run("adopt", "n1").stdout == "No server has loaded a module that Modfleet did not install.\n"


def test_an_unknown_node(run):
    answer = run("adopt", "nowhere")
    assert (answer.exit_code, "modfleet nodes" in answer.stderr) == (1, True)


def test_the_node_shows_where_an_adopted_module_comes_from(run, module):
    beat("n1", module, ours=True, adopted_from="/opt/before.so")
    assert "another, adopted: runs from /opt/before.so until the next start" in run("nodes", "show", "n1").stdout
