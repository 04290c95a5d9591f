"""Filters and ordering of the lists: what each means, and that none costs a query for each row."""

from typing import Any

import pytest

from rollout.services.freeze import thaw_fleet
from rollout.services.nodes import drain_node, label_node
from tests.plugins.cast import client_of
from tests.plugins.played_nodes import installed, join, play
from tests.recorded_fleet import fleet, start, upload

BEFORE, LATER = "2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"


@pytest.fixture
def ask(alice):
    client = client_of(alice)

    def results(path: str, key: str) -> list[Any]:
        answer = client.get(path)
        assert answer.status_code == 200, answer.content
        return [each[key] for each in answer.json()["results"]]

    return results


@pytest.fixture
def three(db) -> str:
    """n0000 to n0002, and a rollout of greet 1 that has succeeded there."""
    fleet(3)
    uid = start()
    while play():
        pass
    return uid


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("phase=succeeded", True),
        ("phase=running", False),
        ("phase=running&phase=succeeded", True),
        ("module_name=greet&version=1", True),
        ("module_name=other", False),
        ("version=2", False),
        ("actor=system:program", True),
        ("actor=alice", False),
        ("origin=reconciler", False),
        ("action=install", True),
        (f"created_after={BEFORE}&created_before={LATER}", True),
        (f"created_after={LATER}", False),
    ],
)
def test_rollouts(ask, three, query, found):
    assert ask(f"/v2/rollouts?{query}", "uid") == ([three] if found else [])


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("phase=succeeded&ordering=-node", ["n0002", "n0001", "n0000"]),
        ("phase=failed&phase=timed_out", []),
        ("node=n0001", ["n0001"]),
        ("wave=0&ordering=wave&limit=1", ["n0000"]),
        ("wave=7", []),
        ("reason=disk_full", []),
    ],
)
def test_nodes_of_a_rollout(ask, three, query, names):
    assert ask(f"/v2/rollouts/{three}/nodes?{query}", "node") == names


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("label=rack=a", ["n0001"]),
        ("label=rack=a&label=tier=x", []),
        ("phase=draining", ["n0002"]),
        ("phase=online&phase=draining&ordering=-name&limit=1", ["n0002"]),
        ("platform=linux/aarch64", []),
        ("server=redis", []),
        ("module=greet&state=in_sync", ["n0000", "n0001", "n0002"]),
        ("module=greet:2", []),
        ("module=greet:1&state=drifted&state=missing", []),
        ("in_sync=false", []),
        ("ordering=-joined_at&limit=1", ["n0002"]),
    ],
)
def test_nodes(ask, three, query, names):
    label_node("n0001", {"rack": "a"})
    drain_node("n0002")
    assert ask(f"/v2/nodes?{query}", "name") == names


def test_the_log_by_stream_type_and_position(ask, three):
    assert ask(f"/v2/events?stream=rollout:{three}&limit=1", "type") == ["rollout.started.v1"]
    (position,) = ask("/v2/events?type=rollout.started.v1", "position")
    assert set(ask(f"/v2/events?stream_prefix=rollout:&after_position={position}&type=rollout.", "type")) >= {
        "rollout.finished.v1"
    }
    assert position not in ask(f"/v2/events?before_position={position}&ordering=-position", "position")


def test_the_log_by_who_asked_and_when(ask, three, alice):
    client_of(alice).post("/v2/freeze", {"reason": "night"}, format="json", headers={"X-Request-ID": "req-1"})
    assert ask("/v2/events?actor=alice", "type") == ["fleet.frozen.v1"]
    assert ask(f"/v2/events?correlation_id=req-1&after={BEFORE}", "type") == ["fleet.frozen.v1"]
    assert ask(f"/v2/events?after={LATER}", "type") == ask(f"/v2/events?before={BEFORE}", "type") == []
    thaw_fleet()


def test_artifacts(ask, db):
    upload("greet", 1)
    upload("greet", 2, platform="linux/aarch64")
    upload("zap", 1)
    artifacts = "/v2/modules/user-defined/artifacts"
    assert ask(f"{artifacts}?module_name=greet&ordering=-module_name", "version") == [2, 1]
    assert ask(f"{artifacts}?platform=linux/aarch64", "version") == [2]
    assert ask(f"{artifacts}?ordering=version", "module_name") == ["greet", "zap", "greet"]


@pytest.mark.parametrize(
    "path", ["/v2/rollouts?phase=succeeded", "/v2/nodes?module=greet&state=in_sync&in_sync=true", "/v2/events?actor=x"]
)
def test_a_filter_costs_no_query_for_each_row(ask, three, path, django_assert_max_num_queries):
    join("n0009", installed("greet", 1))
    ask(path, "uid") if "rollouts" in path else ask(path, "name" if "nodes" in path else "position")
    with django_assert_max_num_queries(6):
        ask(path, "uid") if "rollouts" in path else ask(path, "name" if "nodes" in path else "position")


def test_a_parameter_that_a_list_does_not_know_is_named(alice):
    answer = client_of(alice).get("/v2/webhooks?enabeld=true")
    assert (answer.status_code, answer.json()["error_code"]) == (400, "invalid_request")
    assert answer.json()["description"].startswith("enabeld: unknown.")
