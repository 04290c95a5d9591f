"""What is read by several queries is of one moment, whatever others commit in between."""

import json
import threading

import pytest

from console.rollouts.live import live
from eventstore import acting_as
from rollout.delivery import ingestion
from rollout.domain.request import RolloutRequest
from rollout.domain.selector import Selector
from rollout.domain.strategy import Strategy
from rollout.messages import Action
from rollout.planning.forecast import plan_document
from rollout.planning.planner import plan_of
from rollout.process import advance
from rollout.queries import explanations, report
from rollout.queries.node_documents import node_documents
from rollout.queries.nodes import node_row
from rollout.reconciliation import reconciler
from rollout.services.nodes import label_node
from rollout.services.rollouts import abort_rollout
from tests.recorded_fleet import fleet, heartbeat_of, installed, phases, say, start

pytestmark = pytest.mark.usefixtures("committed_db")


def spied(monkeypatch, module, name):
    """The arguments of all calls of the module's function in this thread."""
    calls, real, own = [], getattr(module, name), threading.get_ident()

    def spy(*args):
        if threading.get_ident() == own:
            calls.append(args)
        return real(*args)

    monkeypatch.setattr(module, name, spy)
    return calls


def finish(uid, *names):
    for name in names:
        say(uid, name)


def test_a_step_of_a_rollout(between_queries, monkeypatch):
    fleet(3)
    uid = start(max_parallel=1)
    steps = spied(monkeypatch, advance, "step")
    with between_queries('"rollout_rollout"', lambda: finish(uid, "n0000")):
        advance.advance(uid)
    seen = steps[0][2]
    assert (seen.counts["queued"], seen.counts["succeeded"]) == (1, 0)
    assert [each.node for each in seen.ready] == ["n0001"]
    assert phases(uid) == {"n0000": "succeeded", "n0001": "queued", "n0002": "scheduled"}


def test_the_differences_of_the_fleet(between_queries, monkeypatch):
    fleet(1)
    finish(start(), "n0000")
    ingestion.record_heartbeats([heartbeat_of("n0000")])
    differences = spied(monkeypatch, reconciler, "drift_changes")
    with between_queries("rollout_clustertarget", reconciler.reconcile):
        reconciler.reconcile()
    seen = differences[0][0]
    assert (len(seen.drifted), seen.open_drifts) == (1, [])


def test_a_plan(between_queries):
    fleet(2)
    label_node("n0000", {"zone": "a"})
    request = RolloutRequest(
        action=Action.INSTALL,
        module_name="greet",
        version=1,
        selector=Selector(labels={"zone": ("a",)}),
        strategy=Strategy(),
    )
    before = plan_document(plan_of(request))

    def move_and_install():
        label_node("n0000", {"zone": "b"})
        ingestion.record_heartbeats([heartbeat_of("n0000", modules=[installed()])])

    with between_queries('"rollout_node"', move_and_install):
        assert plan_document(plan_of(request)) == before


@pytest.mark.parametrize("ask", [explanations.of_rollout, lambda uid: explanations.of_node(uid, "n0001")])
def test_why_it_waits(between_queries, ask):
    names = fleet(2)
    uid = start(max_parallel=1)
    before = ask(uid).document
    with between_queries("eventstore_event", lambda: finish(uid, *names)):
        assert ask(uid).document == before


def test_a_report(between_queries):
    fleet(2)
    uid = start()
    before = report.report_of(uid).rollout

    def abort():
        with acting_as("user:alice"):
            abort_rollout(uid)

    with between_queries('"rollout_rollout"', abort):
        assert report.report_of(uid).rollout | {"generated_at": before["generated_at"]} == before


def test_a_node(between_queries):
    fleet(1)
    before = node_documents([node_row("n0000")])
    with between_queries(
        "rollout_liveness", lambda: ingestion.record_heartbeats([heartbeat_of("n0000", modules=[installed()])])
    ):
        assert json.dumps(node_documents([node_row("n0000")])) == json.dumps(before)


def test_a_page_of_a_rollout(between_queries):
    names = fleet(2)
    uid = start(max_parallel=1)
    before = live(uid, by=1, may_act=True)
    with between_queries('"rollout_rollout"', lambda: finish(uid, *names)):
        assert live(uid, by=1, may_act=True) == before
