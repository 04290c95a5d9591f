"""Plans, strategies and selectors over HTTP."""

from functools import partial
from typing import Any

import pytest

from eventstore import head
from rollout.services.nodes import decommission_node, drain_node, label_node
from tests.plugins.cast import client_of
from tests.recorded_fleet import fleet, join, say, start, upload
from tests.recorded_modules import load_on, package

pytestmark = pytest.mark.django_db

GREET = {"action": "install", "module_name": "greet", "version": 1}
DEFAULTS = {
    "canary": 1,
    "waves": [],
    "max_parallel": 10,
    "min_healthy": 0,
    "max_failures": 0,
    "on_failure": "pause",
    "on_abort": "finish",
    "soak_seconds": 0.0,
    "gate": "none",
    "settle_seconds": 10.0,
    "health": {"failed_calls": "warn"},
    "node_deadline_seconds": 300.0,
    "progress_deadline_seconds": 600.0,
    "ready_deadline_seconds": 3600.0,
    "domain": "",
    "retries": {"limit": 2, "backoff_seconds": 5.0, "reasons": ["fetch_failed", "server_unreachable", "module_busy"]},
    "offline": "wait",
    "start_at": None,
    "approval": False,
    "pause_seconds": 5.0,
    "window": "",
}


def plan(client, **changes):
    return client.post("/v2/rollouts/plan", {**GREET, **changes}, format="json")


def begin(client, **changes):
    return client.post("/v2/rollouts", {**GREET, **changes}, format="json")


def error(response):
    return response.status_code, response.json()["error_code"]


# --- Plans ------------------------------------------------------------------------------------------------------------


def test_it_works(admin):
    fleet(3)
    join("arm", platform="linux/aarch64")
    answer = plan(admin, strategy={"max_parallel": "50%", "max_failures": "50%", "min_healthy": 1})
    body = answer.json()
    assert (answer.status_code, len(body.pop("plan_hash"))) == (200, 64)
    assert body == {
        **GREET,
        "activation": "auto",
        "may_interrupt": False,
        "may_discard_data": False,
        "failback": False,
        "total": 4,
        "strategy": {**DEFAULTS, "max_parallel": "50%", "max_failures": "50%", "min_healthy": 1},
        "waves": [wave(0, ["n0000"], max_failures=0), wave(1, ["n0001", "n0002"], max_failures=1)],
        "skipped": [
            {
                "node": "arm",
                "reason": "incompatible_arch",
                "message": "arm is linux/aarch64; there are builds for linux/x86_64.",
            }
        ],
        "warnings": [],
        "learned": {
            **dict.fromkeys(("has_types", "aux_data", "commands", "options", "differences")),
            "builds": 1,
            "known_builds": 0,
            "in_words": ["Not known yet: the first node's scratch server will find out."],
        },
        "lost_options": [],
        "irreversible": [],
        "shards": [],
        "shard_count": 0,
        "min_healthy": 1,
        "max_failures": 1,
        "bytes": 30,
        "predicted_seconds": None,
        "dependencies": [],
    }


def wave(number, names, *, max_failures):
    return {
        "wave": number,
        "nodes": [
            {
                "node": name,
                "bytes": 10,
                "expected": None,
                "shard": None,
                "role": None,
                "way": "load",
                "restart": None,
            }
            for name in names
        ],
        "total": len(names),
        "max_parallel": 1,
        "max_failures": max_failures,
        "bytes": 10 * len(names),
    }


def test_a_plan_writes_nothing(admin):
    fleet(2)
    before = head()
    assert plan(admin).status_code == 200
    assert (head(), admin.get("/v2/rollouts").json()["results"]) == (before, [])


def test_dependencies_are_listed_in_the_order_in_which_they_are_installed(admin):
    join("n1", "n2")
    package("base")
    load_on(["n2"], "base")
    package("json", needs=["base"])
    package("greet", needs=["json"])
    common = {"version": 1, "joined": [], "predicted_seconds": 2.0}
    assert plan(admin).json()["dependencies"] == [
        {**common, "module_name": "base", "nodes": ["n1"], "bytes": 10},
        {**common, "module_name": "json", "nodes": ["n1", "n2"], "bytes": 20, "predicted_seconds": 4.0},
    ]


def test_whoever_may_look_may_plan(anyone, bob, mallory):
    fleet(1)
    assert plan(client_of(bob)).status_code == 200
    assert begin(client_of(bob)).status_code == 403
    assert plan(client_of(mallory)).status_code == 403
    assert plan(anyone).status_code == 401


def test_a_plan_is_refused_for_what_a_start_is_refused_for(admin):
    assert error(plan(admin)) == error(begin(admin)) == (409, "no_nodes")
    join("n1")
    assert error(plan(admin)) == error(begin(admin)) == (404, "artifact_not_found")
    upload()
    assert error(plan(admin, nodes=["x"])) == error(begin(admin, nodes=["x"])) == (400, "unknown_node")
    assert error(plan(admin, strategy={"min_healthy": 1})) == (400, "invalid_request")
    uid = begin(admin).json()["uid"]
    answer = plan(admin)
    assert error(answer) == (409, "rollout_in_progress")
    assert uid in answer.json()["description"]
    assert plan(admin, supersede=True).status_code == 200


def test_what_is_needed_and_cycles_are_conflicts(admin):
    join("n1")
    package("json")
    load_on(["n1"], "json")
    package("greet", needs=["json"])
    load_on(["n1"], "greet")
    assert error(plan(admin, action="remove", module_name="json")) == (409, "module_needed")
    package("cycle", needs=["cycle"])
    assert error(plan(admin, module_name="cycle")) == (409, "dependency_cycle")
    package("needs", needs=["nothing"])
    assert error(plan(admin, module_name="needs")) == (409, "missing_dependency")


# --- Predictions ------------------------------------------------------------------------------------------------------


def test_the_prediction_is_rounds_times_the_measured_mean_and_soaks(admin):
    names = fleet(6)
    uid = start(nodes=tuple(names[:1]))
    say(uid, names[0], seconds=2.0)  # its inventory is not known yet, so it is expected to change too
    strategy = {"waves": [3], "max_parallel": 2, "soak_seconds": 10}
    # 1 node, 3 and 2 by twos: 1 + 2 + 1 rounds of 2 seconds; 3 soaks
    assert plan(admin, strategy=strategy).json()["predicted_seconds"] == 38.0


def test_nodes_that_have_it_take_no_time(admin):
    join("n1", "n2")
    package("greet")
    load_on(["n1", "n2"], "greet")
    body = plan(admin).json()
    assert (body["predicted_seconds"], body["bytes"]) == (0.0, 0)
    assert [each["expected"] for each in body["waves"][0]["nodes"]] == ["already_installed"]


def test_what_others_took_is_taken_where_nothing_was_measured(admin):
    names = fleet(1)
    package("json")
    load_on(names, "json")
    assert plan(admin).json()["predicted_seconds"] == 2.0
    assert plan(admin, action="remove").json()["predicted_seconds"] is None


# --- The hash ---------------------------------------------------------------------------------------------------------


def test_what_was_planned_is_started(admin):
    fleet(2)
    assert begin(admin, plan_hash=plan(admin).json()["plan_hash"]).status_code == 202


def test_a_plan_that_has_changed_is_not_started(admin):
    fleet(2)
    known = plan(admin).json()["plan_hash"]
    join("n9999")
    answer = begin(admin, plan_hash=known)
    assert error(answer) == (409, "plan_changed")
    assert "POST /v2/rollouts/plan" in answer.json()["description"]
    assert admin.get("/v2/rollouts").json()["results"] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda: join("n9999"),
        lambda: drain_node("n0001"),
        lambda: decommission_node("n0001"),
        lambda: [each() for each in (partial(load_on, ["n0000"], "json"), partial(load_on, ["n0000"], "greet"))],
        lambda: load_on(["n0000", "n0001", "n0002"], "json"),
    ],
    ids=["a node more", "one to skip", "a node less", "another canary", "nothing to come before"],
)
def test_the_hash_changes_with_what_would_be_done(admin, change):
    package("json")
    package("greet", needs=["json"])
    join("n0000", "n0001", "n0002")
    known = plan(admin).json()["plan_hash"]
    change()
    assert plan(admin).json()["plan_hash"] != known


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"activation": "files"},
        {"nodes": ["n0000", "n0001"]},
        {"strategy": {"canary": 2}},
        {"strategy": {"soak_seconds": 1}},
        {"supersede": True},
    ],
)
def test_the_hash_is_that_of_one_request(admin, change):
    fleet(2)
    upload(version=2)
    assert plan(admin, **change).json()["plan_hash"] != plan(admin).json()["plan_hash"]


def test_the_hash_stays_when_the_same_would_be_done(admin):
    package("greet")
    join("n0000", "n0001")
    package("json")
    known = plan(admin).json()
    load_on(["n0001"], "greet")  # not the canary: less to move, a prediction, the same schedule
    now = plan(admin).json()
    assert (now["bytes"], now["predicted_seconds"]) != (known["bytes"], known["predicted_seconds"])
    assert now["plan_hash"] == known["plan_hash"]


@pytest.mark.parametrize("value", ["", "x", "A" * 64, "a" * 63, 1, None])
def test_a_hash_that_is_none_is_refused(admin, value):
    fleet(1)
    answer = begin(admin, plan_hash=value)
    assert error(answer) == (400, "invalid_request")
    assert "plan_hash: " in answer.json()["description"]


# --- Selectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ({"names": ["a*", "c"]}, ["a1", "c"]),
        ({"labels": {"rack": "r1"}}, ["a1", "b"]),
        ({"labels": {"rack": ["r1", "r2"]}, "roles": ["replica"]}, ["b", "c"]),
        ({"servers": ["redis"], "versions": ["7.2"]}, ["a1"]),
        ({"platforms": ["linux/x86_64"], "names": ["?"]}, ["b", "c"]),
    ],
)
def test_a_selector_picks_nodes(admin, selector, names):
    upload()
    join("a1", labels={"rack": "r1"}, server="redis", server_version="7.2.4", role="master")
    join("b", labels={"rack": "r1"}, server="valkey", server_version="8.1", role="replica")
    join("c", labels={"rack": "r2"}, server="redis", server_version="7.4", role="replica")
    body = plan(admin, selector=selector, strategy={"canary": 0}).json()
    assert [each["node"] for each in body["waves"][0]["nodes"]] == names


def test_a_selector_that_matches_no_node(admin):
    fleet(1)
    assert error(begin(admin, selector={"names": ["x"]})) == (400, "no_nodes")


@pytest.mark.parametrize(
    ("selector", "field"),
    [
        ([], "selector"),
        ({}, "selector"),
        (None, "selector"),
        ({"color": ["red"]}, "selector.color"),
        ({"names": "a*"}, "selector.names"),
        ({"names": []}, "selector.names"),
        ({"names": [1]}, "selector.names.0"),
        ({"labels": []}, "selector.labels"),
        ({"labels": {}}, "selector.labels"),
        ({"labels": {"rack": 1}}, "selector.labels.rack"),
        ({"labels": {"rack": []}}, "selector.labels.rack"),
        ({"labels": {"rack": [1]}}, "selector.labels.rack"),
        ({"servers": ["memcached"]}, "selector.servers.0"),
        ({"roles": ["primary"]}, "selector.roles.0"),
    ],
)
def test_each_bad_field_of_a_selector_is_named(admin, selector, field):
    fleet(1)
    answer = plan(admin, selector=selector)
    assert error(answer) == (400, "invalid_request")
    assert f"{field}: " in answer.json()["description"]


def test_a_selector_does_not_go_together_with_nodes(admin):
    fleet(1)
    answer = plan(admin, selector={"names": ["*"]}, nodes=["n0000"])
    assert answer.json()["description"] == "selector: Cannot be combined with nodes."


# --- Strategies -------------------------------------------------------------------------------------------------------


def test_a_rollout_shows_all_of_its_strategy(admin):
    fleet(2)
    assert begin(admin).json()["strategy"] == DEFAULTS


def test_every_field_of_a_strategy_can_be_given_as_it_is_answered(admin):
    fleet(2)
    given = {
        "canary": "10%",
        "waves": [1, "50%"],
        "max_parallel": 3,
        "min_healthy": "1%",
        "max_failures": "100%",
        "on_failure": "rollback",
        "on_abort": "undo",
        "soak_seconds": 1.5,
        "gate": "manual",
        "settle_seconds": 0.0,
        "health": {"failed_calls": "stop"},
        "node_deadline_seconds": 60.0,
        "progress_deadline_seconds": 604_800.0,
        "ready_deadline_seconds": 1.0,
        "domain": "zone",
        "retries": {"limit": 0, "backoff_seconds": 0.5, "reasons": ["disk_full"]},
        "offline": "skip",
        "start_at": "2030-01-01T12:00:00Z",
        "approval": True,
        "pause_seconds": 0.5,
        "window": "Sat 01:00-05:00 Europe/Berlin",
    }
    for name in ("n0000", "n0001"):
        label_node(name, {"zone": "a"})
    assert plan(admin, strategy=given).json()["strategy"] == given
    assert plan(admin, strategy=DEFAULTS).json()["strategy"] == DEFAULTS


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("2030-01-01T12:00:00+02:00", "2030-01-01T10:00:00Z"),
        ("2030-01-01t12:00:00.25z", "2030-01-01T12:00:00.250000Z"),
    ],
)
def test_a_time_may_be_of_any_zone(admin, given, meant):
    fleet(1)
    assert plan(admin, strategy={"start_at": given}).json()["strategy"]["start_at"] == meant


AMOUNTS: list[Any] = [-1, 10_001, 1.5, True, None, [], "5", "5 %", "05%", "-1%", "101%", "1.5%", "%", "\u0661%", ""]


@pytest.mark.parametrize("field", ["canary", "max_parallel", "min_healthy", "max_failures"])
@pytest.mark.parametrize("value", AMOUNTS)
def test_an_amount_is_a_number_of_nodes_or_a_share(admin, field, value):
    answer = begin(admin, strategy={field: value})
    assert error(answer) == (400, "invalid_request")
    assert f"strategy.{field}: " in answer.json()["description"]


@pytest.mark.parametrize(
    ("strategy", "field"),
    [
        ({"max_parallel": 0}, "max_parallel"),
        ({"max_parallel": "0%"}, "max_parallel"),
        ({"waves": 1}, "waves"),
        ({"waves": [1] * 101}, "waves"),
        ({"waves": [1, 0]}, "waves.1"),
        ({"waves": ["0%"]}, "waves.0"),
        ({"on_failure": "ignore"}, "on_failure"),
        ({"health": {"failed_calls": "ignore"}}, "health.failed_calls"),
        ({"health": "stop"}, "health"),
        ({"on_abort": "kill"}, "on_abort"),
        ({"gate": True}, "gate"),
        ({"offline": "forget"}, "offline"),
        ({"soak_seconds": -1}, "soak_seconds"),
        ({"soak_seconds": 86_401}, "soak_seconds"),
        ({"soak_seconds": "5"}, "soak_seconds"),
        ({"settle_seconds": -1}, "settle_seconds"),
        ({"settle_seconds": 300}, "settle_seconds"),
        ({"settle_seconds": 1801, "node_deadline_seconds": 9000}, "settle_seconds"),
        ({"node_deadline_seconds": 10}, "settle_seconds"),
        ({"settle_seconds": 5, "node_deadline_seconds": 5}, "settle_seconds"),
        ({"node_deadline_seconds": 0}, "node_deadline_seconds"),
        ({"progress_deadline_seconds": 0}, "progress_deadline_seconds"),
        ({"progress_deadline_seconds": 604_801}, "progress_deadline_seconds"),
        ({"retries": 3}, "retries"),
        ({"retries": {"limit": 11}}, "retries.limit"),
        ({"retries": {"limit": -1}}, "retries.limit"),
        ({"retries": {"backoff_seconds": 301}}, "retries.backoff_seconds"),
        ({"retries": {"reasons": "disk_full"}}, "retries.reasons"),
        ({"retries": {"reasons": ["bad_luck"]}}, "retries.reasons.0"),
        ({"retries": {"color": 1}}, "retries.color"),
        ({"start_at": 1_900_000_000}, "start_at"),
        ({"start_at": "2030-01-01T12:00:00"}, "start_at"),
        ({"start_at": "2030-01-01"}, "start_at"),
        ({"start_at": "2030-13-01T12:00:00Z"}, "start_at"),
        ({"start_at": "0001-01-01T00:00:00+14:00"}, "start_at"),
        ({"approval": "yes"}, "approval"),
        ({"color": "red"}, "color"),
    ],
)
def test_each_bad_field_of_a_strategy_is_named(admin, strategy, field):
    answer = begin(admin, strategy=strategy)
    assert error(answer) == (400, "invalid_request")
    assert f"strategy.{field}: " in answer.json()["description"]


def test_all_bad_fields_of_a_strategy_are_named_at_once(admin):
    answer = begin(admin, strategy={"canary": "x", "waves": [0], "retries": {"limit": 11, "color": 1}, "size": 1})
    named = ("strategy.canary", "strategy.waves.0", "strategy.retries.limit", "strategy.retries.color", "strategy.size")
    assert all(f"{name}: " in answer.json()["description"] for name in named)


def test_the_order_of_the_reasons_to_retry_changes_no_plan(admin):
    fleet(2)
    reasons = ["module_busy", "fetch_failed", "server_unreachable"]
    one, other = ({"retries": {"limit": 2, "reasons": each}} for each in (reasons, reasons[::-1]))
    assert plan(admin, strategy=one).json()["plan_hash"] == plan(admin, strategy=other).json()["plan_hash"]
    fewer = {"retries": {"limit": 2, "reasons": reasons[:2]}}
    assert plan(admin, strategy=one).json()["plan_hash"] != plan(admin, strategy=fewer).json()["plan_hash"]
