"""A node whose server cannot be used: it is degraded, gets nothing, and recovers."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from msgspec import to_builtins

from accounts.services import update_cluster_settings
from eventstore import StoredEvent, head
from rollout.delivery import ingestion
from rollout.delivery.ingestion import node_facts
from rollout.domain.node.degraded import in_full
from rollout.domain.node.events import node_stream
from rollout.domain.node.pace import BURST
from rollout.messages import Action, FindingStatus, Phase, Reason, ServerModule, ServerProblem, ServerState
from rollout.models import Liveness, NodeFacts, Rollout
from rollout.process.advance import advance
from rollout.process.offline_nodes import declare_silent_nodes_offline
from rollout.queries.explanations import of_node, of_rollout
from rollout.queries.snapshot import bad_nodes
from rollout.queries.statistics import degraded_nodes, fact_counts, nodes_by_phase
from rollout.reconciliation.reconciler import reconcile
from rollout.services.nodes import forget_node
from tests.plugins.cast import client_of
from tests.recorded_fleet import (
    ALONE,
    fleet,
    heartbeat_of,
    installed,
    inventory,
    know,
    node,
    operation,
    phases,
    rollout,
    say,
    silence,
    start,
    upload,
)

pytestmark = pytest.mark.django_db

USABLE = replace(ALONE, run_id="a", used_memory=1)
AWAY = ServerState(problem=ServerProblem.SERVER_UNREACHABLE, message="The server at unix:///s cannot be reached.")


def finding(check="include_line", status=FindingStatus.FAIL):
    return {"check": check, "status": status, "message": "No line includes it.", "fix": "Add a line."}


def beat(*names, facts=USABLE, doctor=(), age=None, **more):
    ingestion.record_heartbeats(
        [
            heartbeat_of(name, **more) | {"facts": to_builtins(facts), "doctor": doctor, "examined_seconds_ago": age}
            for name in names
        ]
    )


def go_offline(name):
    silence(name)
    declare_silent_nodes_offline()


def drift(name):
    update_cluster_settings(correct_drift=False)
    beat(name, modules=[])
    reconcile()


def kinds(name):
    return list(
        StoredEvent.objects.filter(stream=node_stream(name)).order_by("position").values_list("type", flat=True)
    )


def test_a_server_that_is_away_and_back():
    fleet(1)
    beat("n0000", facts=AWAY)
    row = node("n0000")
    assert (row.phase, row.degraded_reason) == ("degraded", "server_unreachable")
    assert row.degraded_message == AWAY.message
    beat("n0000")
    assert (node("n0000").phase, node("n0000").degraded_reason, node("n0000").degraded_message) == ("online", "", "")
    assert kinds("n0000")[-2:] == ["node.degraded.v1", "node.recovered.v1"]


@pytest.mark.parametrize("facts", [USABLE, AWAY])
def test_a_heartbeat_without_news_creates_no_event(facts):
    fleet(1)
    beat("n0000", facts=facts)
    before = head()
    for number in range(5):
        beat(
            "n0000",
            facts=ServerState(**{**{name: getattr(facts, name) for name in facts.__slots__}, "used_memory": number}),
        )
    assert head() == before


def test_a_failed_check_degrades_and_a_warning_does_not():
    fleet(1)
    beat("n0000", doctor=[finding(status=FindingStatus.WARN), finding("noexec", FindingStatus.UNKNOWN)])
    assert node("n0000").phase == "online"
    beat("n0000", doctor=[finding()])
    assert (node("n0000").phase, node("n0000").degraded_reason) == ("degraded", "doctor_failed")


def test_an_agent_that_sends_no_facts_is_not_judged():
    fleet(1)
    beat("n0000", facts=AWAY)
    ingestion.record_heartbeats([heartbeat_of("n0000")])
    assert node("n0000").phase == "online"
    assert NodeFacts.objects.count() == 1


def test_it_gets_nothing_until_it_is_back():
    fleet(2)
    beat("n0000", facts=AWAY)
    uid = start()
    assert phases(uid) == {"n0000": "scheduled", "n0001": "queued"}
    say(uid, "n0001")
    advance(uid)
    why = of_node(uid, "n0000").document
    (wait,) = why["waits_for"]
    assert wait["what"] == "degraded"
    assert wait["text"].endswith(in_full("server_unreachable", AWAY.message).rstrip("."))
    waits = {each["what"]: each["text"] for each in of_rollout(uid).document["waits_for"]}
    assert re.search(r"to be usable again: `modfleet nodes show [^` ]+` tells the reason$", waits["degraded"])
    beat("n0000")
    assert phases(uid)["n0000"] == "queued"


def test_an_operation_in_progress_ends_as_before():
    fleet(1)
    uid = start()
    beat("n0000", facts=AWAY)
    assert phases(uid) == {"n0000": "queued"}
    say(uid, "n0000", Phase.FAILED, reason=Reason.SERVER_UNREACHABLE)
    assert operation(uid, "n0000").reason == "server_unreachable"


def test_it_is_no_canary():
    fleet(3)
    beat("n0000", facts=AWAY)
    uid = start(careful={"canary": 1, "max_parallel": 1})
    assert operation(uid, "n0001").wave == 0
    assert operation(uid, "n0000").wave > 0


def test_it_does_not_count_as_healthy():
    fleet(3)
    beat("n0002", facts=AWAY)
    uid = start(careful={"canary": 0, "min_healthy": 2, "max_parallel": 3})
    assert set(phases(uid).values()) == {"scheduled"}


def test_a_success_whose_server_is_away_counts_as_lost():
    fleet(2)
    uid = start()
    say(uid, "n0000", inventory=inventory(installed()))
    assert bad_nodes(uid) == (0,)
    beat("n0000", facts=AWAY, modules=[installed()])
    assert bad_nodes(uid) == (1,)
    beat("n0000", modules=[installed()], doctor=[finding()])
    assert bad_nodes(uid) == (0,)


@pytest.mark.parametrize("facts", [AWAY, replace(USABLE, would_start="no", would_start_reason="/x.so does not exist.")])
def test_what_was_heard_before_a_success_is_no_loss(facts):
    """The heartbeat that says so came while the server was restarted, or before the module was repaired."""
    fleet(3)
    uid = start(max_parallel=1, careful={"canary": 1})
    beat("n0000", facts=facts)
    say(uid, "n0000", inventory=inventory(installed()))
    advance(uid)
    assert bad_nodes(uid) == (0, 0)
    assert rollout(uid).phase == "running"
    beat("n0000", facts=facts, modules=[installed()])
    advance(uid)
    assert bad_nodes(uid) == (1, 0)
    assert rollout(uid).phase == "paused"


def test_a_node_that_is_examined_after_a_restart_is_no_loss():
    """It stays degraded until its doctor has ended, but its server answers again."""
    fleet(3)
    uid = start(max_parallel=1, careful={"canary": 1})
    beat("n0000", facts=AWAY)
    say(uid, "n0000", inventory=inventory(installed()))
    beat("n0000", doctor=None, modules=[installed()])
    assert node("n0000").phase == "degraded"
    advance(uid)
    assert bad_nodes(uid) == (0, 0)
    assert rollout(uid).phase == "running"


def test_a_server_that_would_not_start_gets_one_attempt_to_repair_it():
    fleet(1)
    would_not = replace(USABLE, would_start="no", would_start_reason="/x.so does not exist.")
    beat("n0000", facts=would_not)
    uid = start()
    assert phases(uid) == {"n0000": "queued"}
    words = "The server would not start after this change either."
    say(uid, "n0000", Phase.SCHEDULED, reason=Reason.SERVER_NOT_READY, message=words)
    for _ in range(3):
        beat("n0000", facts=would_not)
        advance(uid)
    assert phases(uid) == {"n0000": "scheduled"}
    assert operation(uid, "n0000").message == words
    assert "/x.so does not exist" in of_node(uid, "n0000").document["waits_for"][0]["text"]
    beat("n0000", facts=replace(USABLE, would_start="unknown", would_start_reason="It cannot be read."))
    assert phases(uid) == {"n0000": "queued"}


def test_an_adoption_repairs_nothing():
    fleet(1)
    beat("n0000", facts=replace(USABLE, would_start="no", would_start_reason="/x.so does not exist."))
    uid = start(released=False)
    Rollout.objects.update(adopt=True)
    advance(uid)
    assert phases(uid) == {"n0000": "scheduled"}


def test_a_success_after_which_the_server_would_not_start_counts_as_lost():
    fleet(2)
    uid = start()
    say(uid, "n0000", inventory=inventory(installed()))
    assert bad_nodes(uid) == (0,)
    would_not = ServerState(run_id="a", would_start="no", would_start_reason="It crashes.")
    beat("n0001", facts=would_not)  # nothing was done there yet
    assert bad_nodes(uid) == (0,)
    beat("n0000", facts=would_not, modules=[installed()])
    assert bad_nodes(uid) == (1,)


@pytest.mark.parametrize(
    ("lose", "words"),
    [
        (lambda: beat("n0000", facts=AWAY), f"Its server cannot be used: server_unreachable: {AWAY.message}"),
        (
            lambda: beat("n0000", facts=replace(USABLE, would_start="no", would_start_reason="/x.so does not exist.")),
            "Its server cannot be used: would_not_start: The server would not start again: /x.so does not exist.",
        ),
        (lambda: go_offline("n0000"), "It is offline: its agent does not report."),
        (lambda: drift("n0000"), "Its server no longer has greet 1 as the rollout installed it: unloaded_by_hand."),
    ],
    ids=["no server", "would not start", "offline", "drifted"],
)
def test_a_rollout_that_stops_for_a_lost_node_names_it_and_its_state(lose, words):
    fleet(3)
    uid = start(max_parallel=1, careful={"canary": 1})
    say(uid, "n0000", inventory=inventory(installed()))
    beat("n0000", modules=[installed()])
    lose()
    advance(uid)
    assert rollout(uid).phase == "paused"
    assert f"n0000: {words}" in of_rollout(uid).document["summary"]


def test_facts_of_a_former_release_have_the_newer_fields_too(alice):
    fleet(1)
    beat("n0000")
    row = NodeFacts.objects.get()
    del row.server["would_start"]
    row.save()
    state = client_of(alice).get("/v2/nodes/n0000").json()["server_state"]
    assert (state["would_start"], state["run_id"]) == ("", "a")


def test_the_reconciler_leaves_it_alone():
    fleet(1)
    uid = start()
    say(uid, "n0000", inventory=inventory(installed()))
    beat("n0000", facts=AWAY)  # its modules are not loaded, as far as is known
    before = head()
    reconcile()
    assert head() == before
    beat("n0000", modules=[installed(content="patched")])
    reconcile()
    assert "node.drifted.v1" in kinds("n0000")


def test_a_server_that_comes_and_goes_fills_no_log():
    """A degraded node is known at once, also after that."""
    fleet(1)
    for _ in range(50):
        beat("n0000", facts=AWAY)
        beat("n0000")
    found = kinds("n0000")
    assert found.count("node.degraded.v1") + found.count("node.recovered.v1") <= BURST + 1
    assert node("n0000").phase == "degraded"
    Liveness.objects.update(pace={})
    beat("n0000")
    assert node("n0000").phase == "online"


def test_facts_are_written_when_they_change_or_rarely(monkeypatch):
    fleet(1)
    beat("n0000", facts=USABLE)
    first = NodeFacts.objects.get()
    beat("n0000", facts=replace(USABLE, used_memory=2, role="master"))
    assert NodeFacts.objects.get().server["used_memory"] == 1
    beat("n0000", facts=replace(USABLE, used_memory=3, role="replica"))
    assert NodeFacts.objects.get().server["used_memory"] == 3
    for left in ("1,100 MB", "900 MB"):
        beat("n0000", facts=replace(USABLE, role="replica", save_problem=f"The host has {left} left."))
    assert "1,100 MB" in NodeFacts.objects.get().server["save_problem"]
    monkeypatch.setattr(node_facts, "FACTS_SECONDS", 0.0)
    beat("n0000", facts=replace(USABLE, used_memory=4, role="replica"))
    assert (NodeFacts.objects.get().server["used_memory"], first.server["run_id"]) == (4, "a")


def test_the_doctor_at_work_leaves_its_last_findings():
    fleet(1)
    beat("n0000", doctor=[finding("loadmodule_owner"), finding("clock", FindingStatus.WARN)], age=90.0)
    beat("n0000", doctor=None)
    row = NodeFacts.objects.get()
    assert row.doctor
    assert row.examined_at is not None
    assert 90 <= row.reported_at.timestamp() - row.examined_at.timestamp() < 150
    assert (row.failed, row.warned, row.has_conflict, len(row.doctor)) == (1, 1, True, 2)
    assert node("n0000").phase == "degraded"


def test_a_server_that_restarts_in_a_loop():
    fleet(1)
    now = Liveness.objects.get().last_seen
    for run_id in "abcc":
        beat("n0000", facts=ServerState(run_id=run_id))
        beat("n0000", facts=AWAY)
    assert fact_counts(now).restarting == 0
    beat("n0000", facts=ServerState(run_id="d"))
    assert len(NodeFacts.objects.get().restarts) == 3
    assert fact_counts(now).restarting == 1
    assert fact_counts(now + timedelta(seconds=1200)).restarting == 0


def test_the_counts_of_the_metrics():
    fleet(4)
    beat("n0000", facts=AWAY)
    beat("n0001", facts=ServerState(run_id="a", include_seen=False), doctor=[finding()])
    beat("n0002", facts=ServerState(run_id="a", include_seen=True), doctor=[finding("loadmodule_owner")])
    assert nodes_by_phase() == {"degraded": 3, "online": 1}
    assert degraded_nodes() == {"server_unreachable": 1, "doctor_failed": 2}
    counts = fact_counts(Liveness.objects.latest("last_seen").last_seen)
    assert (counts.include_missing, counts.conflicting) == (1, 1)


def test_what_a_node_said_is_forgotten():
    fleet(1)
    beat("n0000", facts=AWAY)
    forget_node("n0000")
    assert (NodeFacts.objects.count(), node("n0000").degraded_reason, node("n0000").phase) == (0, "", "offline")


def test_the_queries_do_not_depend_on_the_nodes():
    names = fleet(40)
    counted = []
    for number, some in enumerate((names[:2], names)):
        beat(*names, facts=ServerState(run_id=f"before{number}"))
        with CaptureQueriesContext(connection) as queries:
            beat(*some, facts=ServerState(run_id=f"after{number}"))
        counted.append(len(queries))
    assert counted[0] == counted[1]


@pytest.mark.parametrize(
    ("capabilities", "action", "activation", "skipped"),
    [
        (["files", "load", "remove", "undo"], "install", "load", False),
        (["files"], "install", "load", True),
        (["files"], "install", "files", False),
        (["files", "load"], "remove", "load", True),
        (None, "install", "load", False),
    ],
)
def test_an_agent_that_is_too_old(capabilities, action, activation, skipped):
    upload()
    fleet_of_one = heartbeat_of("n0000", hello=True) | {"capabilities": capabilities, "protocol": 1}
    know("n0000")
    ingestion.record_heartbeats([fleet_of_one])
    uid = start(action=Action(action), activation=activation)
    row = operation(uid, "n0000")
    assert (row.reason == "agent_too_old", row.phase == "skipped") == (skipped, skipped)
    if skipped:
        assert "pip install --upgrade modfleet" in row.message


def test_an_agent_that_only_observes_takes_part_in_no_rollout():
    upload()
    know("n0000")
    ingestion.record_heartbeats([heartbeat_of("n0000", hello=True) | {"capabilities": [], "protocol": 1}])
    row = operation(start(), "n0000")
    assert (row.phase, row.reason) == ("skipped", "observe_only")
    assert "modfleet agent install --add load" in row.message


def test_over_http(alice):
    fleet(2)
    beat("n0000", facts=ServerState(run_id="a", problem="server_loading", message="It loads."), doctor=[finding()])
    client = client_of(alice)
    listed = {each["name"]: each for each in client.get("/v2/nodes?phase=degraded").json()["results"]}
    assert listed.keys() == {"n0000"}
    shown = listed["n0000"]
    assert shown["degraded"] == {"reason": "server_loading", "message": "It loads."}
    assert shown["doctor_summary"] == {"failed": 1, "warned": 0}
    assert shown["warnings"][0] == {"code": "degraded", "message": in_full("server_loading", "It loads.")}
    assert not {"server_state", "doctor"} & shown.keys()
    whole = client.get("/v2/nodes/n0000").json()
    assert (whole["server_state"]["run_id"], whole["doctor"][0]["fix"]) == ("a", "Add a line.")
    other = client.get("/v2/nodes/n0001").json()
    assert (other["degraded"], other["doctor_summary"], other["server_state"]["role"]) == (None, None, "master")


def test_as_it_was(alice):
    fleet(1)
    beat("n0000", facts=AWAY)
    then = head()
    beat("n0000")
    former = client_of(alice).get(f"/v2/nodes/n0000?as_of={then}").json()
    assert (former["phase"], former["degraded"]["reason"], former["server_state"]) == (
        "degraded",
        "server_unreachable",
        None,
    )


def test_in_the_console(alice):
    fleet(2)
    server = ServerState(
        run_id="a",
        role="replica",
        master="10.0.0.1:6379",
        loading=False,
        modules=(
            ServerModule(name="<b>search</b>", version=3, path="/opt/search.so"),
            ServerModule(name="lua", version=1, path="lua", bundled=True),
            ServerModule(name="greet", version=1, path="/m/greet.so", ours=True, adopted_from="/opt/greet.so"),
        ),
    )
    beat("n0001", facts=server, doctor=[finding(), finding("clock", FindingStatus.PASS)], age=130.0)
    client = Client()
    client.force_login(alice)
    page = client.get("/admin/rollout/node/n0001/change/").content.decode()
    for words in (
        "Server",
        "Replication",
        "10.0.0.1:6379",
        "Loaded modules",
        "&lt;b&gt;search",
        "the server (bundled)",
        "another, adopted: runs from /opt/greet.so until the next start",
        "Doctor, 2\xa0minutes ago",
        "Add a line.",
        "<dt>Used memory, bytes</dt><dd>unknown</dd>",
    ):
        assert words in page
    assert "badge-fail is-bad" in page
    nodes = client.get("/admin/rollout/node/").content.decode()
    assert nodes.index("n0001") < nodes.index("n0000")
    assert "doctor_failed" in nodes
    assert "Add a line." not in client.get("/admin/rollout/node/n0000/change/").content.decode()
