"""A node that changes with each of its messages: the log grows within a bound, and bad news is known at once."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from eventstore import StoredEvent, database_now, read
from rollout.delivery import ingestion
from rollout.delivery.ingestion import heartbeats, order
from rollout.domain.node.events import (
    NodeCameBack,
    NodeInventoryChanged,
    NodeProfileChanged,
    NodeWentOffline,
    node_stream,
)
from rollout.domain.node.pace import BURST, OPERATION, SECONDS
from rollout.domain.strategy import Offline
from rollout.messages import Phase, to_json
from rollout.models import Liveness
from rollout.process import offline_nodes
from rollout.queries.node_documents import node_documents
from rollout.queries.snapshot import bad_nodes
from rollout.reconciliation.reconciler import reconcile
from tests.recorded_fleet import (
    fleet,
    heartbeat_of,
    installed,
    inventory,
    node,
    phases,
    rollout,
    say,
    silence,
    start,
    state_of,
    upload,
)

PAGE = (Path(__file__).parents[3] / "docs/explanation/log-growth.md").read_text()

pytestmark = pytest.mark.django_db


@pytest.fixture
def n():
    (name,) = fleet(1)
    return name


def heartbeat(name, *modules, **profile):
    ingestion.record_heartbeats([heartbeat_of(name, modules=modules, **profile)])


def sync_of(name, module_name="greet"):
    state = state_of(name, module_name=module_name)
    assert state
    return state[2]


def count(*kinds):
    return len(list(read(event_classes=kinds)))


def pass_time(seconds=SECONDS):
    for row in Liveness.objects.all():
        row.pace = {change: full_at - seconds for change, full_at in row.pace.items()}
        row.save()


@pytest.mark.slow
def test_the_figure_for_a_day_is_right(n, monkeypatch):
    """In `docs/explanation/log-growth.md`, by six hours of it. The node is another and has other modules at each heartbeat,
    and is away before each pair of them."""
    say(start(), n, inventory=inventory(installed()))
    of_node = StoredEvent.objects.filter(stream=node_stream(n))
    before, began, step = of_node.count(), database_now(), SECONDS / 4
    for number in range(int(86_400 / 4 / step)):
        now = began + timedelta(seconds=number * step)
        for module in (order, offline_nodes):
            monkeypatch.setattr(module, "database_now", lambda now=now: now)
        offline_nodes.declare_silent_nodes_offline()
        heartbeat(n, installed(), server_version=f"1.{number}", operating_system=node(n).operating_system)
        heartbeat(n, server_version=node(n).server_version, operating_system=f"rhel{number}")
    day, first = (int(number) for number in re.findall(r"^\| (?:a|the first) day \| (\d+)", PAGE, re.MULTILINE))
    assert 0.9 * day / 4 < of_node.count() - before - first <= day / 4


def test_a_profile_that_changes_with_each_heartbeat(n):
    for number in range(60):
        heartbeat(n, server_version=f"9.0.{number}")
    assert count(NodeProfileChanged) == BURST
    assert node(n).server_version == "9.0.9"
    pass_time()
    for number in range(60, 120):
        heartbeat(n, server_version=f"9.0.{number}")
    assert count(NodeProfileChanged) == BURST + 1
    assert node(n).server_version == "9.0.60"


def test_modules_that_change_with_each_heartbeat(n):
    for number in range(60):
        heartbeat(n, installed(content=f"c{number}"))
    assert count(NodeInventoryChanged) == BURST


def test_a_node_that_goes_silent_again_and_again(n):
    for _ in range(30):
        silence(n)
        offline_nodes.declare_silent_nodes_offline()
        heartbeat(n)
        assert node(n).phase == "online"
    assert (count(NodeWentOffline), count(NodeCameBack)) == (BURST, BURST)
    silence(n)
    pass_time()
    offline_nodes.declare_silent_nodes_offline()
    assert node(n).phase == "offline"


def fall_silent_too_often(name, *modules):
    for _ in range(BURST + 1):
        silence(name)
        offline_nodes.declare_silent_nodes_offline()
        heartbeat(name, *modules)


def test_a_node_that_works_is_never_taken_for_offline(n):
    fall_silent_too_often(n)
    uid = start(careful={"offline": Offline.FAIL})
    say(uid, n, inventory=inventory(installed()))
    fall_silent_too_often(n, installed())
    assert bad_nodes(uid) == (0,)
    assert (rollout(uid).phase, phases(uid)) == ("succeeded", {n: "succeeded"})


def test_a_node_that_falls_silent_too_often_says_so(n):
    fall_silent_too_often(n)
    (shown,) = node_documents([node(n)])
    assert [each["message"] for each in shown["warnings"] if each["code"] != "unsigned"] == [
        "It falls silent too often: it may count as online for 10 minutes without a heartbeat. Check its network."
    ]


@pytest.mark.parametrize(
    "other",
    [{"platform": "linux/aarch64"}, {"operating_system": "rhel9"}, {"server": "valkey"}],
    ids=lambda each: str(*each),
)
def test_what_decides_the_build_is_known_whatever_else_changes(n, other):
    for number in range(BURST + 1):
        heartbeat(n, server_version=f"9.0.{number}")
    heartbeat(n, server_version="8.0", **other)
    ((name, value),) = other.items()
    assert getattr(node(n), name) == value


def test_a_platform_that_changes_with_each_heartbeat(n):
    for number in range(60):
        heartbeat(n, operating_system=f"rhel{number}")
    assert count(NodeProfileChanged) == BURST


def test_a_module_that_is_lost_is_known_at_once(n):
    say(start(), n, inventory=inventory(installed()))
    for number in range(60):
        heartbeat(n, installed(), installed(7, f"c{number}", loaded=False))
    heartbeat(n)
    assert state_of(n) == ("load", "absent", "missing")
    reconcile()
    assert ["greet", 1] in node(n).drifts


def test_a_module_that_comes_and_goes(n):
    say(start(), n, inventory=inventory(installed()))
    before = count(NodeInventoryChanged)
    for _ in range(60):
        heartbeat(n)
        heartbeat(n, installed())
    assert state_of(n) == ("load", "absent", "missing")
    assert count(NodeInventoryChanged) - before <= 2 * BURST


def test_a_module_that_is_lost_is_known_at_once_whatever_another_does(n):
    upload("other", content="o1")
    other = installed(content="o1", module_name="other")
    say(start(), n, inventory=inventory(installed()))
    say(start(module_name="other"), n, inventory=inventory(installed(), other))
    for _ in range(BURST):
        heartbeat(n, installed())
        heartbeat(n, installed(), other)
    heartbeat(n, installed())
    heartbeat(n, other)
    assert (sync_of(n), sync_of(n, module_name="other")) == ("missing", "missing")
    pass_time()
    heartbeat(n, other)
    assert (sync_of(n), sync_of(n, module_name="other")) == ("missing", "in_sync")


def test_modules_that_come_and_go_in_turn(n):
    """That one is lost brings no other back before its turn."""
    upload("other", content="o1")
    other = installed(content="o1", module_name="other")
    say(start(), n, inventory=inventory(installed()))
    say(start(module_name="other"), n, inventory=inventory(installed(), other))
    before = count(NodeInventoryChanged)
    for _ in range(60):
        heartbeat(n, installed())
        heartbeat(n, other)
    assert count(NodeInventoryChanged) - before <= 3 * BURST


def test_a_report_that_comes_again_with_other_modules(n):
    uid = start()
    say(uid, n, inventory=inventory(installed()))
    for number in range(60):
        say(uid, n, inventory=inventory(installed(content=f"c{number}")))
    assert count(NodeInventoryChanged) == 1
    heartbeat(n, installed(content="c59"))
    assert node_documents([node(n)])[0]["modules"][0]["content_sha256"] == "c59"


def test_what_an_operation_leaves_is_recorded_whatever_was_before(n):
    for number in range(60):
        heartbeat(n, installed(7, f"c{number}", loaded=False))
    say(start(), n, inventory=inventory(installed()))
    assert state_of(n) == ("load", "load", "in_sync")


def test_what_is_held_back_costs_as_much_as_what_says_nothing_new(n):
    def queries(**profile):
        with CaptureQueriesContext(connection) as captured:
            heartbeat(n, **profile)
        return len(captured)

    same = queries()
    for number in range(BURST):
        heartbeat(n, server_version=f"9.0.{number}")
    assert queries(server_version="8.0") == same


def test_it_is_shown_until_it_is_over(n):
    for number in range(60):
        heartbeat(n, server_version=f"9.0.{number}")
    (shown,) = node_documents([node(n)])
    assert [each["code"] for each in shown["warnings"]] == ["unsigned", "changes_too_often"]
    pass_time()
    heartbeat(n, server_version="9.0.9")
    (shown,) = node_documents([node(n)])
    assert [each["code"] for each in shown["warnings"]] == ["unsigned"]


def test_a_node_s_clock_orders_nothing(n):
    """Only the database's clock counts."""
    body = heartbeat_of(n)
    for number in range(60):
        body = heartbeat_of(n, server_version=f"9.0.{number}")
        ingestion.record_heartbeats([body | {"sent_at": 1e9 + number * SECONDS}])
    assert count(NodeProfileChanged) == BURST


def test_what_another_worker_has_counted_meanwhile_stays_counted(n, monkeypatch):
    """Between the look of a worker that records nothing of the node, and its row."""
    locked = order.locked_rows
    others: list[bool] = []

    def locked_later(names):
        if not others:
            others.append(True)
            heartbeat(n, server_version="9.0.1")
        return locked(names)

    monkeypatch.setattr(heartbeats, "locked_rows", locked_later)
    heartbeat(n)
    assert set(Liveness.objects.get().pace) == {"profile"}


def test_a_heartbeat_that_overtakes_the_report_of_an_operation(n):
    def counted(counter, *modules):
        return replace(inventory(*modules), incarnation="a" * 32, counter=counter)

    def hear(counted):
        ingestion.record_heartbeats([heartbeat_of(n) | {"inventory": to_json(counted)}])

    for number in range(60):
        hear(counted(number, installed(7, f"c{number}", loaded=False)))
    uid, reported = start(), counted(60, installed())
    hear(counted(61, installed()))
    say(uid, n, inventory=reported)
    assert state_of(n) == ("load", "load", "in_sync")


def test_what_an_operation_changes_is_recorded_at_once(n):
    """Many operations change a node many times. That is no flapping."""
    uid = start()
    say(uid, n, Phase.LOADING)
    for number in range(60):
        heartbeat(n, server_version=f"9.0.{number}")
    assert count(NodeProfileChanged) == BURST
    for _ in range(2):
        say(uid, n, inventory=inventory(installed()))  # it ends once
        for number in range(60, 120):
            heartbeat(n, server_version=f"9.0.{number}")
        assert count(NodeProfileChanged) == BURST + OPERATION
