"""`modfleet adopt` against the API's real server."""

import json

import msgspec
import pytest

from modfleet.client import Client
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
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert (shown.exit_code, lines[:2]) == (0, [["MODULE", "VERSION", "ADOPT", "SKIP"], [loaded, "1", "1", "2"]])
    assert [line[:4] for line in lines[5:]] == [[node, loaded, "1", f"/opt/{loaded}.so"] for node in ("n2", "n3")]
    assert "The line is on the server's command line." in shown.stdout
    assert not Rollout.objects.filter(module_name=loaded).exists()


def test_a_line_that_a_person_must_change(run, module):
    beat("n1", module, sha256="c1", line="/etc/redis/redis.conf:7", by_person=True)
    assert plans(json.loads(run("adopt", "n1", "--dry-run", "--json").stdout)) == {
        "n1": "adopt: wait until a person has changed its line"
    }
    shown = run("adopt", "n1", "--dry-run").stdout
    assert "A person must change these lines" in shown
    assert ["n1", module, "/etc/redis/redis.conf:7", f"/opt/{module}.so"] in [
        each.split() for each in shown.splitlines()
    ]


def test_what_comes_with_the_server_is_not_shown(run):
    beat("n1", "bundled", bundled=True)
    beat("n2", "ours", ours=True)
    assert json.loads(run("adopt", "n1", "n2", "--json").stdout) == {"modules": [], "rollouts": []}


def test_it_asks_once_for_all_nodes_and_once_for_each_version(run, loaded, monkeypatch):
    asked = []
    send = Client._send

    def noted(api, method, path, **more):
        asked.append(path)
        return send(api, method, path, **more)

    monkeypatch.setattr(Client, "_send", noted)
    beat("n2", loaded, "unheard", sha256="c1")
    run("adopt", "--dry-run", "n1", "n2", "n3")
    assert asked == ["/v2/nodes", "/v2/rollouts/plan", "/v2/rollouts/plan"]


def test_a_second_run_starts_nothing(run, loaded):
    run("adopt", "n1", "--json")
    document = json.loads(run("adopt", "n1", "--json").stdout)
    assert (document["rollouts"], "skip: " in plans(document)["n1"]) == ([], True)
    beat("n1", loaded, ours=True, adopted_from=f"/opt/{loaded}.so")
    assert json.loads(run("adopt", "n1", "--json").stdout) == {"modules": [], "rollouts": []}


def test_a_refusal_of_one_module_leaves_the_others(run, loaded, monkeypatch):
    """The server of n1 has changed between the plan and the start."""
    post = Client.post

    def late(api, path, body=None):
        if path == "/v2/rollouts":
            beat("n1", loaded, sha256="c2")
        return post(api, path, body)

    monkeypatch.setattr(Client, "post", late)
    answer = run("adopt", "n1", "--yes")
    assert (answer.exit_code, f"{loaded} 1 was not started: " in answer.stderr) == (1, True)
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
    assert run("adopt", "n1").stdout.startswith("There is nothing to adopt: ")


def test_an_unknown_node(run):
    answer = run("adopt", "nowhere")
    assert (answer.exit_code, "modfleet nodes" in answer.stderr) == (1, True)


def test_the_node_shows_where_an_adopted_module_comes_from(run, module):
    beat("n1", module, ours=True, adopted_from="/opt/before.so")
    assert "another, adopted: runs from /opt/before.so until the next start" in run("nodes", "show", "n1").stdout
