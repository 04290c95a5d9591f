"""A plan shows the shards that it changes: each server with its role and depth, Sentinels, and replicas without an agent."""

from dataclasses import replace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from modfleet.commands.rollout import _plan_in_words
from rollout.messages import Action
from rollout.planning import forecast
from rollout.services.ignored_replicas import ignore_replica
from tests.recorded_fleet import join, upload
from tests.recorded_shards import beat, master_of, replica_of, say
from tests.unit.cli.test_tree import printed

pytestmark = pytest.mark.django_db

INSTALL = {"action": Action.INSTALL, "module_name": "greet", "version": 1}
STATES = {
    "n1": master_of("a:2", "b:9", addresses=("a:1",), sentinels=3),
    "n2": replica_of("a:1", "a:4", addresses=("a:2",)),
    "n4": replica_of("a:2", addresses=("a:4",)),
    "other": master_of("c:2", addresses=("c:1",)),
    "other-2": replica_of("c:1", addresses=("c:2",)),
    "alone": master_of(addresses=("d:1",)),
}


@pytest.fixture
def shards():
    upload()
    join(*STATES)
    say(*(beat(name, state) for name, state in STATES.items()))
    ignore_replica("b:9", reason="A reporting <server>")


def plan(client, **more):
    answer = client.post("/v2/rollouts/plan", INSTALL | more, content_type="application/json")
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_the_document_has_them(shards, admin):
    found = plan(admin, nodes=["n2", "alone"])["shards"]
    assert [each["shard"] for each in found] == ["n1"]
    (shard,) = found
    assert [(each["name"], each["role"], each["depth"], each["master"]) for each in shard["nodes"]] == [
        ("n1", "master", 0, None),
        ("n2", "replica", 1, "n1"),
        ("n4", "replica", 2, "n2"),
    ]
    assert shard["nodes"][0]["sentinels"] == 3
    assert shard["nodes"][0]["ignored_replicas"] == ["b:9"]
    assert [(each["address"], each["reason"]) for each in shard["ignored_replicas"]] == [
        ("b:9", "A reporting <server>")
    ]


def test_a_skipped_node_has_its_shard_too(shards, admin):
    assert [each["shard"] for each in plan(admin, nodes=["other"])["shards"]] == ["other"]


def test_servers_that_stand_alone_are_in_none(shards, admin):
    found = plan(admin, nodes=["alone"])
    assert (found["shards"], found["shard_count"]) == ([], 0)


def test_the_shards_with_something_to_see_are_first_and_the_others_are_counted(shards, admin, monkeypatch):
    monkeypatch.setattr(forecast, "MOST_SHARDS", 1)
    say(beat("other", replace(STATES["other"], sentinels=1)))
    found = plan(admin, nodes=list(STATES))
    assert ([each["shard"] for each in found["shards"]], found["shard_count"]) == (["n1"], 2)


def test_the_queries_do_not_grow_with_the_nodes(shards, admin):
    def queries(*nodes):
        with CaptureQueriesContext(connection) as found:
            plan(admin, nodes=list(nodes))
        return len(found)

    assert queries("n1", "n2", "n4") == queries("n1", "n2", "n4", "other", "other-2")


def test_the_command_line_prints_the_tree(shards, admin):
    lines = printed(_plan_in_words(plan(admin)))
    start = lines.index("n1: master, watched by 3 Sentinels")
    assert lines[start : start + 4] == [
        "n1: master, watched by 3 Sentinels",
        "├── n2: replica",
        "│   └── n4: replica",
        "└── b:9: ignored replica",
    ]
    assert any(line.split()[:4] == ["b:9", "A", "reporting", "<server>"] for line in lines)


def test_the_console_shows_them(shards, client, alice):
    client.force_login(alice)
    form = {"artifact": "greet/1", "action": "install", "activation": "load", "preview": "1"}
    page = client.get("/admin/rollouts/start", form).content.decode()
    for words in ("Shards", "Sentinels", "b:9: A reporting &lt;server&gt;", "/admin/rollout/node/n4/change/"):
        assert words in page
