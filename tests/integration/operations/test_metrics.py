"""`/metrics`: who may read it, what stands in it, and what it costs."""

import signal
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from config.environment import SettingsError, read_environment
from eventstore import Append, append, database_now, head, load, projections
from operations import collector, relay_heartbeat
from operations.models import Heartbeat
from rollout.delivery import consumer, ingestion
from rollout.delivery.outbox import publish_due
from rollout.domain.node.events import NodeDrifted, node_stream
from rollout.messages import REPORTS, Phase, Reason
from rollout.models import Liveness
from rollout.process.advance import advance_all
from rollout.queries.rollouts import unfinished_rollouts
from rollout.services.freeze import freeze_fleet
from rollout.services.rollouts import pause_rollout, promote_rollout, resume_rollout
from rollout.transport import DROPPED
from tests.plugins.cast import client_of
from tests.recorded_fleet import differences, fleet, heartbeat_of, installed, inventory, join, phases, say, start

pytestmark = pytest.mark.django_db
TOKEN = "0123456789abcdef"


@pytest.fixture
def with_token(settings):
    settings.ENVIRONMENT = read_environment({"MODFLEET_METRICS_TOKEN": TOKEN})


def bearer(token):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


def test_it_works(scrape, broker):
    names = fleet(3)
    uid = start(max_parallel=2)
    say(uid, names[0])
    say(uid, names[1], Phase.FAILED, reason=Reason.DISK_FULL)
    found = scrape()
    assert found["modfleet_nodes", "online"] == 3
    assert found["modfleet_rollouts", "running"] == 1
    assert found["modfleet_operations_finished_total", "succeeded", ""] == 1
    assert found["modfleet_operations_finished_total", "failed", "disk_full"] == 1
    assert found["modfleet_operations_unfinished", "queued", ""] == 1
    assert found["modfleet_broker_up",] == found["modfleet_database_up",] == 1
    assert found["modfleet_log_position",] == head()
    assert found["modfleet_log_size_bytes",] > 1000


def test_how_long_rollouts_wait_for_a_person(scrape, broker, monkeypatch):
    def waits():
        found = scrape()
        return {key[1]: value for key, value in found.items() if key[0] == "modfleet_rollout_waits_for_person_seconds"}

    fleet(4)
    assert waits() == {"approval": 0, "gate": 0, "paused": 0}
    start(nodes=("n0000",), careful={"approval": True})
    paused = start(nodes=("n0001",))
    pause_rollout(paused)
    gated = start(nodes=("n0002", "n0003"), careful={"canary": 1, "gate": "manual"})
    (first,) = [name for name, phase in phases(gated).items() if phase == Phase.QUEUED]
    say(gated, first)
    now = database_now()
    monkeypatch.setattr(collector, "database_now", lambda: now + timedelta(hours=5))
    assert {cause: round(seconds / 3600) for cause, seconds in waits().items()} == {
        "approval": 5,
        "gate": 5,
        "paused": 5,
    }
    resume_rollout(paused)
    promote_rollout(gated)
    assert {cause: round(seconds / 3600) for cause, seconds in waits().items()} == {
        "approval": 5,
        "gate": 0,
        "paused": 0,
    }


def test_durations_of_rollouts_come_from_the_database(scrape, broker):
    names = fleet(2)
    for phase in (Phase.SUCCEEDED, Phase.FAILED):
        uid = start(max_parallel=2, supersede=True)
        for name in names:
            say(uid, name, phase)
    advance_all(unfinished_rollouts())
    found = scrape()
    assert found["modfleet_rollout_duration_seconds_count", "succeeded"] == 1
    assert found["modfleet_rollout_duration_seconds_bucket", "10.0", "succeeded"] == 1
    assert found["modfleet_rollout_duration_seconds_sum", "succeeded"] > 0


def test_outcomes_are_the_same_when_rebuilt(broker):
    names = fleet(2)
    uid = start()
    say(uid, names[0], seconds=1.5)
    say(uid, names[1], Phase.FAILED, reason=Reason.LOAD_FAILED, seconds=0.5)
    (outcomes,) = [each for each in projections.registered() if each.name == "outcomes"]
    assert projections.check(outcomes) == []
    assert "outcomes" not in differences()


def test_what_waits_for_whom(scrape, broker, viewer):
    start_on = fleet(3)
    start(max_parallel=3)
    assert scrape()["modfleet_outbox_commands",] == 3
    publish_due()
    broker.send(REPORTS, 1, 2)
    found = scrape()
    assert found["modfleet_outbox_commands",] == found["modfleet_outbox_oldest_seconds",] == 0
    assert found["modfleet_control_queue_messages", "control"] == 2
    assert found["modfleet_node_queue_messages",] == len(start_on)
    assert found["modfleet_node_queue_longest_messages",] == 1


def test_a_frozen_fleet_and_a_drifted_module(scrape, broker):
    (name,) = fleet(1)
    say(start(), name, inventory=inventory(installed()))
    found = scrape()
    assert found["modfleet_node_modules", "greet", "in_sync"] == 1
    assert found["modfleet_drifted_node_modules", "greet"] == found["modfleet_fleet_frozen",] == 0
    append(Append(node_stream(name), len(load(node_stream(name))), [drifted(name)]))
    freeze_fleet("holidays")
    found = scrape()
    assert found["modfleet_drifted_node_modules", "greet"] == found["modfleet_fleet_frozen",] == 1
    assert found["modfleet_oldest_drift_seconds",] > 0


def test_a_node_names_no_modules_of_the_metrics(scrape, broker):
    names = fleet(2)
    say(start(), names[0], inventory=inventory(installed()))
    invented = [installed(module_name=f"m{number}") for number in range(20)]
    ingestion.record_heartbeats([heartbeat_of(names[1], modules=[installed(), *invented])])
    found = scrape()
    assert {key[1] for key in found if "node_modules" in key[0]} == {"greet"}


def test_a_node_names_no_reasons_of_the_metrics(scrape, broker):
    names = fleet(3)
    reasons = {"server_loading": names[0], 'invented"\n': names[1], "invented too": names[2]}
    ingestion.record_heartbeats(
        [heartbeat_of(name) | {"facts": {"problem": reason}} for reason, name in reasons.items()]
    )
    found = {key: value for key, value in scrape().items() if key[0] == "modfleet_nodes_degraded" and value}
    assert found == {
        ("modfleet_nodes_degraded", "server_loading"): 1,
        ("modfleet_nodes_degraded", "other"): 2,
    }


def drifted(name):
    return NodeDrifted(node=name, module_name="greet", version=1, desired="load", observed="absent", content_sha256="")


def test_what_was_dropped_and_whose_clock_is_wrong(scrape, broker):
    fleet(2)
    Liveness.objects.filter(node="n0001").update(clock_skew_seconds=-31.0)
    DROPPED.take()
    batches: tuple[list[dict[str, Any]], ...] = ([{"phase": "x"}, {}], [{}])
    for bodies in batches:
        consumer.record_reports(bodies)
        ingestion.record_dropped()
    with CaptureQueriesContext(connection) as queries:
        ingestion.record_dropped()
    assert len(queries) == 0
    found = scrape()
    assert found["modfleet_dropped_messages_total", "control", "malformed"] == 3
    assert found["modfleet_nodes_clock_skewed",] == 1


def test_a_relay_that_was_never_there_has_no_lag(scrape, broker, monkeypatch):
    assert ("modfleet_relay_lag_seconds",) not in scrape()
    monkeypatch.setattr(relay_heartbeat, "_next_heartbeat", 0.0)
    began = time.monotonic()
    relay_heartbeat.record_relay_heartbeat(position=0)
    assert 0 <= scrape()["modfleet_relay_lag_seconds",] <= time.monotonic() - began


def test_a_look_is_not_noted_again_at_once(monkeypatch):
    monkeypatch.setattr(relay_heartbeat, "_next_heartbeat", 0.0)
    monkeypatch.setattr(relay_heartbeat, "INTERVAL_SECONDS", 3600)
    relay_heartbeat.record_relay_heartbeat(position=0)
    relay_heartbeat.record_relay_heartbeat(position=5)
    assert Heartbeat.objects.get().position == 0


def test_a_broker_that_is_down_breaks_nothing(scrape, dead_broker):
    fleet(2)
    found = scrape()
    assert found["modfleet_broker_up",] == 0
    assert found["modfleet_nodes", "online"] == 2
    assert not any(name.startswith("modfleet_node_queue") for name, *_ in found)


def test_a_broker_that_hangs_holds_nothing_up(scrape, broker):
    broker.process.send_signal(signal.SIGSTOP)
    try:
        assert scrape()["modfleet_broker_up",] == 0
    finally:
        broker.process.send_signal(signal.SIGCONT)


def test_requests_are_counted_by_route(scrape, viewer, broker):
    name = ("modfleet_http_requests_total", "GET", "/v2/nodes/<str:name>", "404")
    unmatched = ("modfleet_http_requests_total", "GET", "unmatched", "404")
    before = scrape()
    viewer.get("/v2/nodes/nobody?token=hush")
    viewer.get("/v2/rollouts/../../etc/passwd")
    viewer.get("/no/such/path")
    after = scrape()
    assert after[name] == before.get(name, 0) + 1
    assert after[unmatched] == before.get(unmatched, 0) + 2
    assert not any("hush" in str(each) or "passwd" in str(each) for each in after)


def test_a_method_that_nobody_knows_is_one_of_others(scrape, viewer, broker):
    viewer.generic("BREW", "/v2/nodes")
    assert ("modfleet_http_requests_total", "other", "/v2/nodes", "405") in scrape()


def test_every_metric_has_its_help_and_a_unit_that_is_customary(viewer, broker):
    fleet(1)
    text = viewer.get("/metrics").content.decode()
    families = {each.name: each for each in text_string_to_metric_families(text)}
    ours = {name: each for name, each in families.items() if name.startswith("modfleet_")}
    assert len(ours) > 20
    assert all(each.documentation.endswith(".") for each in ours.values())
    assert [name for name in families if "millis" in name or "minutes" in name] == []


def test_it_costs_the_same_for_any_fleet(viewer, broker, django_assert_num_queries):
    fleet(2)
    start()
    for count in (2, 60):
        join(*(f"m{number}" for number in range(count)))
        with django_assert_num_queries(22):
            viewer.get("/metrics")


def test_credentials_are_needed(anyone, mallory, db):
    assert anyone.get("/metrics").status_code == 401
    assert client_of(mallory).get("/metrics").status_code == 403


@pytest.mark.usefixtures("with_token", "dead_broker")
def test_the_token_of_the_settings_reads_it_and_nothing_else():
    assert bearer(TOKEN).get("/metrics").status_code == 200
    assert bearer(TOKEN + "x").get("/metrics").status_code == 401
    assert bearer(TOKEN).get("/v2/nodes").status_code == 401
    assert bearer(TOKEN).post("/metrics").status_code == 405


@pytest.mark.usefixtures("dead_broker")
def test_no_token_is_set_and_none_is_taken():
    assert bearer("").get("/metrics").status_code == 401


def test_a_short_token_is_refused():
    with pytest.raises(SettingsError, match="METRICS_TOKEN: must have at least 16"):
        read_environment({"MODFLEET_METRICS_TOKEN": "short"})
