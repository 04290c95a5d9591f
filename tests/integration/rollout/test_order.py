"""What a node says is ordered by its incarnation; a node that says what cannot be harms only itself, and for a while."""

import time
from dataclasses import replace
from datetime import timedelta

import pytest

from eventstore import database_now, read
from rollout.delivery import ingestion
from rollout.delivery.ingestion.order import LONGEST_ORDER_SECONDS
from rollout.messages import Heartbeat, Inventory, Phase, from_json, to_json
from rollout.models import Liveness, Node, NodeModule
from rollout.queries import statistics
from tests.plugins.cast import client_of
from tests.recorded_fleet import (
    differences,
    fleet,
    grew,
    heartbeat_of,
    installed,
    join,
    know,
    node,
    operation,
    report_of,
    rollout,
    say,
    silence,
    start,
    upload,
)

pytestmark = pytest.mark.django_db

LARGEST = 2**63 - 1


def look(incarnation, counter, *modules, sequence=1):
    return Inventory(sequence=sequence, modules=modules, incarnation=incarnation, counter=counter)


def heartbeats(*looks, name="n1", hello=False, **more):
    know(name)
    ingestion.record_heartbeats(
        [
            to_json(replace(from_json(Heartbeat, heartbeat_of(name, hello=hello)), inventory=each, **more))
            for each in looks
        ]
    )


def seen(name="n1"):
    """What is known to be on the node: versions."""
    rows = NodeModule.objects.filter(node=name).exclude(observed="absent")
    return sorted(rows.values_list("version", flat=True))


def warnings(client, name="n1"):
    """The codes, without that of a node whose messages are not signed."""
    return [each["code"] for each in client.get(f"/v2/nodes/{name}").json()["warnings"] if each["code"] != "unsigned"]


def test_a_clock_that_is_set_back_freezes_nothing():
    heartbeats(look("a", 1, installed(1), sequence=time.time_ns()))
    heartbeats(look("a", 2, installed(2), sequence=5))
    assert seen() == [2]


@pytest.mark.parametrize("sequence", [LARGEST, 2**62])
def test_an_old_agent_with_a_wrong_clock_freezes_nothing(sequence):
    join("n1")
    for number, version in ((sequence, 1), (time.time_ns(), 2)):
        heartbeats(Inventory(sequence=number, modules=(installed(version),)))
    assert seen() == [2]


def test_a_counter_that_cannot_be_is_ignored_and_shown(admin):
    heartbeats(look("a", 1, installed(1)))
    heartbeats(look("a", LARGEST, installed(2)))
    assert (seen(), warnings(admin)) == ([1], ["implausible_counter"])
    heartbeats(look("a", 2, installed(3)))
    assert (seen(), warnings(admin)) == ([3], [])


def test_a_late_message_of_an_older_start_is_ignored():
    heartbeats(look("a", 9, installed(1)), hello=True)
    heartbeats(look("b", 1, installed(2)), hello=True)
    heartbeats(look("a", 10, installed(1)))
    assert seen() == [2]
    heartbeats(look("b", 2, installed(3)))
    assert seen() == [3]


def test_a_late_report_of_an_older_start_ends_its_operation_and_changes_no_inventory():
    (name,) = fleet(1)
    uid = start()
    heartbeats(look("a", 5), name=name, hello=True)
    heartbeats(look("b", 1, installed(7)), name=name, hello=True)
    ingestion.record_reports([report_of(uid, name, inventory=look("a", 6, installed(1, "c1")))])
    assert (rollout(uid).phase, seen(name)) == ("succeeded", [7])


def test_a_restarted_agent_is_heard_before_its_hello():
    """Its report and its hello come through two queues."""
    (name,) = fleet(1)
    heartbeats(look("a", 5_000), name=name, hello=True)
    uid = start()
    ingestion.record_reports([report_of(uid, name, inventory=look("b", 1, installed(1)))])
    assert (rollout(uid).phase, seen(name)) == ("succeeded", [1])


def test_order_within_a_batch():
    heartbeats(look("a", 3, installed(3)), look("a", 1, installed(1)), look("a", 2, installed(2)))
    assert seen() == [3]


def test_one_node_s_nonsense_is_not_another_s():
    heartbeats(look("a", 1, installed(1)), name="n1")
    heartbeats(look("a", 1, installed(1)), name="n2")
    heartbeats(look("a", LARGEST, installed(9)), name="n1")
    heartbeats(look("a", 2, installed(2)), name="n2")
    assert (seen("n1"), seen("n2")) == ([1], [2])


def test_after_silence_whoever_speaks_is_believed():
    heartbeats(look("a", 900_000, installed(1)))
    silence("n1")
    heartbeats(look("a", 3, installed(2)))
    assert seen() == [2]


def test_an_interval_that_was_claimed_delays_that_by_three_minutes_at_most():
    heartbeats(look("a", 1, installed(1)))
    heartbeats(look("b", 1), interval_seconds=3600.0)
    heartbeats(look("a", 2, installed(1)))
    assert seen() == []
    Liveness.objects.update(last_seen=database_now() - timedelta(seconds=LONGEST_ORDER_SECONDS + 1))
    heartbeats(look("a", 3, installed(1)))
    assert seen() == [1]


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_is_a_path_joins_no_fleet(name):
    heartbeat = to_json(from_json(Heartbeat, heartbeat_of("n1", hello=True)))
    ingestion.record_heartbeats([heartbeat | {"node": name}])
    assert not Node.objects.exists()


@pytest.mark.parametrize(
    "profile",
    [{"labels": {f"x{number}": "y" for number in range(65)}}, {"labels": {"x": "y" * 256}}, {"api_hosts": ["h" * 256]}],
)
def test_what_a_node_says_of_itself_is_bounded(profile):
    heartbeat = to_json(from_json(Heartbeat, heartbeat_of("n1", hello=True)))
    ingestion.record_heartbeats([heartbeat | {"profile": heartbeat["profile"] | profile}])
    assert not Node.objects.exists()


def test_a_heartbeat_without_changes_is_no_event_after_a_restart_either():
    heartbeats(look("a", 1, installed(1)), hello=True)
    assert grew(lambda: heartbeats(look("b", 1, installed(1)), hello=True)) == 0
    assert Liveness.objects.get(node="n1").former == ["a"]


def test_what_a_node_said_is_forgotten(admin):
    (name,) = fleet(1)
    uid = start()
    say(uid, name, inventory=look("a", 9, installed(1)))
    heartbeats(look("a", 10, installed(1)), name=name, generations={"greet": 900})
    answer = admin.post(f"/v2/nodes/{name}/forget").json()
    assert (answer["phase"], answer["last_seen"], seen(name)) == ("offline", None, [])
    assert [each.actor for each in read() if each.type == "node.forgotten.v1"] == ["user:alice"]
    heartbeats(look("a", 4, installed(1)), name=name)
    assert (node(name).phase, seen(name)) == ("online", [1])
    assert differences() == {}


def test_a_forgotten_generation_raises_nothing(admin):
    upload()
    join("n1", generations={"greet": 500})
    admin.post("/v2/nodes/n1/forget")
    join("n1")
    assert operation(start(), "n1").generation == 1


def test_a_viewer_forgets_nothing(bob):
    join("n1")
    assert client_of(bob).post("/v2/nodes/n1/forget").status_code == 403


@pytest.mark.parametrize(("off", "direction"), [(86_400, "ahead"), (-90, "behind")])
def test_a_wrong_clock_is_shown(admin, off, direction):
    began = time.time()
    heartbeats(look("a", 1), sent_at=began + off)
    late = time.time() - began
    found = admin.get("/v2/nodes").json()["results"][0]
    assert off - late - 1 <= found["clock_skew_seconds"] <= off + 1
    unsigned, warning = found["warnings"]
    assert (unsigned["code"], warning["code"]) == ("unsigned", "clock_skew")
    assert abs(int(warning["message"].split()[4]) - abs(off)) <= late + 1
    assert warning["message"].endswith(f"{direction}. Set it.")
    assert statistics.skewed_nodes() == 1
    heartbeats(look("a", 2), sent_at=time.time())
    assert (warnings(admin), statistics.skewed_nodes()) == ([], 0)


def test_an_agent_that_does_not_tell_its_time(admin):
    join("n1")
    assert admin.get("/v2/nodes/n1").json()["clock_skew_seconds"] is None


def test_a_report_of_a_broken_disk_ends_the_operation():
    (name,) = fleet(1)
    uid = start()
    say(uid, name, Phase.FAILED, reason="io_error", message="Read-only file system", inventory=None)
    assert (rollout(uid).phase, operation(uid, name).reason) == ("failed", "io_error")
