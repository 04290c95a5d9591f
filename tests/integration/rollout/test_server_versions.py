"""What a plan says about servers: their versions, the functions by which they load a module, and their own modules."""

from dataclasses import replace

import msgspec
import pytest

from accounts.services import update_cluster_settings
from rollout.delivery import ingestion
from rollout.domain.request import RolloutRequest
from rollout.messages import Action, ServerModule, ServerState
from rollout.planning.forecast import plan_document
from rollout.planning.planner import plan_of
from tests.recorded_fleet import fleet, heartbeat_of, join, state_of
from tests.recorded_modules import module_object, package

pytestmark = pytest.mark.django_db

REQUEST = RolloutRequest(action=Action.INSTALL, module_name="greet", version=1)


def planned(**changes):
    return plan_of(replace(REQUEST, **changes))


def skips(plan):
    return {each.name: each.reason for each in plan.skipped}


def warned(plan):
    return [each["node"] for each in plan_document(plan)["warnings"]]


# --- Versions


def test_the_version_that_the_server_reports_counts():
    package("greet", min_redis_version="7.4")
    join("former", server="valkey", server_version="9.1.2")
    join("today", server="valkey", server_version="9.1.2", redis_version="7.2.4")
    join("later", server="valkey", server_version="12.0.0", redis_version="8.0.0")
    assert skips(planned()) == dict.fromkeys(["former", "today"], "incompatible_redis_version")


@pytest.mark.parametrize(("newest", "expected"), [("7.2", ["n74"]), ("7.2.1", ["n74"]), ("7.4.9", []), ("", [])])
def test_a_server_that_is_newer_than_compatible_is_a_warning(newest, expected):
    package("greet", compatible_redis_version=newest)
    join("n70", server="redis", server_version="7.0.15", redis_version="7.0.15")
    join("n72", server="valkey", server_version="9.1.2", redis_version="7.2.4")
    join("n74", server="redis", server_version="7.4.1", redis_version="7.4.1")
    join("unknown")
    plan = planned()
    assert (warned(plan), skips(plan)) == (expected, {})


def test_the_warning_says_why():
    package("greet")
    module_object("greet", compatible_redis_version="7.2")
    join("n1", server="redis", server_version="7.4.1", redis_version="7.4.1")
    (warning,) = planned().warnings
    assert (warning.reason, warning.message) == (
        "incompatible_redis_version",
        "greet 1 is known to be compatible with Redis 7.2; n1 runs redis 7.4.1, which counts as Redis 7.4.1.",
    )
    assert planned(action=Action.REMOVE).warnings == ()


def test_a_policy_makes_it_a_refusal():
    package("greet", compatible_redis_version="7.2")
    join("n1", server="redis", server_version="7.4.1", redis_version="7.4.1")
    update_cluster_settings(enforce_compatible_redis_version=True)
    plan = planned()
    assert (warned(plan), skips(plan)) == ([], {"n1": "incompatible_redis_version"})


def test_a_warning_changes_no_hash():
    """A person who has seen the plan may start it after an agent was upgraded."""
    package("greet", compatible_redis_version="7.2")
    join("n1")
    before = planned().hash
    ingestion.record_heartbeats([heartbeat_of("n1", server="redis", server_version="7.4.1", redis_version="7.4.1")])
    assert (planned().hash, warned(planned())) == (before, ["n1"])


# --- Entry points


@pytest.mark.parametrize(
    ("entry_points", "skipped"),
    [
        (("ValkeyModule_OnLoad",), {"redis": "incompatible_server"}),
        (("RedisModule_OnLoad",), {}),
        (("RedisModule_OnLoad", "ValkeyModule_OnLoad"), {}),
        ((), {}),
    ],
    ids=["valkey only", "redis", "both", "older builds: the server decides"],
)
def test_redis_does_not_get_a_module_that_only_valkey_can_load(entry_points, skipped):
    package("greet", entry_points=entry_points)
    join("redis", server="redis", server_version="7.4.1")
    join("valkey", server="valkey", server_version="9.1.2")
    join("unknown")
    assert skips(planned()) == skipped


# --- Modules of the server


def bundle(name, *, bundled=True, path="/usr/lib/valkey/libgreet.so"):
    module = ServerModule(name="greet", version=7, path=path, bundled=bundled)
    facts = msgspec.to_builtins(ServerState(run_id="a", modules=(module,)))
    ingestion.record_heartbeats([heartbeat_of(name, other_modules=("greet",)) | {"facts": facts}])


@pytest.mark.parametrize("action", Action)
def test_a_bundled_module_is_neither_replaced_nor_removed(action):
    fleet(2)
    bundle("n0000")
    plan = planned(action=action)
    assert skips(plan) == {"n0000": "bundled"}
    assert plan.skipped[0].message == (
        "The server of n0000 has greet 7 from its own package: /usr/lib/valkey/libgreet.so."
    )
    assert state_of("n0000") is None, "no drift"


def test_a_built_in_module():
    fleet(1)
    bundle("n0000", path="")
    assert planned().skipped[0].message == "The server of n0000 has greet 7 built in."


def test_a_module_that_a_person_has_loaded_is_not_bundled():
    fleet(1)
    bundle("n0000", bundled=False)
    assert skips(planned()) == {}


def test_the_node_shows_it(admin):
    fleet(1)
    bundle("n0000")
    (module,) = admin.get("/v2/nodes/n0000").json()["server_state"]["modules"]
    assert (module["bundled"], module["ours"], module["recent_calls"]) == (True, False, None)
