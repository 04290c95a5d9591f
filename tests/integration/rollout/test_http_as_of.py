"""Rollouts and nodes as they were at a position of the log, or at a time."""

from datetime import timedelta
from importlib import import_module
from urllib.parse import quote

import pytest

from api.fields import rfc3339
from eventstore import Append, append, head, position_at, read
from rollout.delivery import ingestion
from rollout.domain.node.events import NodeDrifted, node_stream
from rollout.domain.retries import Retries
from rollout.messages import Action, Phase, Reason
from rollout.process import offline_nodes
from rollout.process.advance import advance_all
from rollout.services.nodes import activate_node, decommission_node, drain_node, label_node
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import pause_rollout, resume_rollout
from tests.recorded_fleet import (
    fleet,
    heartbeat_of,
    installed,
    inventory,
    join,
    operation,
    report_of,
    rollout,
    say,
    silence,
    start,
    upload,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def then(admin):
    """The document as it was."""

    def ask(path, as_of):
        answer = admin.get(path, {"as_of": as_of})
        assert answer.status_code == 200, answer.content
        return answer.json()

    return ask


WRITERS = (
    "delivery.ingestion.heartbeats",
    "delivery.ingestion.reports",
    "process.advance",
    "process.offline_nodes",
    "process.timeouts",
    "services.nodes",
    "services.rollback",
    "services.rollouts",
    "services.start",
)


#: What only the newest heartbeat tells.
NOT_IN_LOG = {"last_seen", "server_state", "doctor", "shard", "depth"}


class Recorder:
    """What the live documents were after each append."""

    def __init__(self, client, *paths):
        self.client, self.paths, self.seen = client, paths, {}

    def look(self):
        found = {path: self.client.get(path) for path in self.paths}
        self.seen[head()] = {path: answer.json() for path, answer in found.items() if answer.status_code == 200}

    def check(self):
        """They are what the log tells of those positions."""
        assert len(self.seen) > 5
        for position, documents in self.seen.items():
            for path, document in documents.items():
                for name in NOT_IN_LOG & document.keys():
                    document[name] = None
                assert self.client.get(path, {"as_of": position}).json() == document


@pytest.fixture
def recorder(admin, monkeypatch):
    """Looks at the documents after every append of the test."""

    def record(*paths):
        made = Recorder(admin, *paths)
        for name in ("eventstore.handling", *(f"rollout.{each}" for each in WRITERS)):
            monkeypatch.setattr(import_module(name), "append", lambda *given, **more: _and_look(made, given, more))
        return made

    return record


def _and_look(made, given, more):
    recorded = append(*given, **more)
    made.look()
    return recorded


def node_paths(uid, *names):
    return [f"/v2/nodes/{each}" for each in names] + [f"/v2/rollouts/{uid}/nodes/{each}" for each in names]


def answer(uid, name, phase=Phase.SUCCEEDED, *modules, **more):
    """The node reports, and what it has then."""
    ingestion.record_reports([report_of(uid, name, phase, inventory=inventory(*modules), **more)])


def test_it_works(then, admin):
    fleet(2)
    uid = start(released=False)
    before = admin.get(f"/v2/rollouts/{uid}").json()
    position = head()
    say(start(nodes=("n0000",), supersede=True), "n0000")
    assert then(f"/v2/rollouts/{uid}", position) == before
    assert then(f"/v2/rollouts/{uid}", head()) == admin.get(f"/v2/rollouts/{uid}").json() != before


def test_a_rollout_and_its_nodes_were_what_they_were_in_all_its_life(recorder):
    names = fleet(4)
    careful = {"canary": 1, "retries": Retries(limit=1, backoff_seconds=1e-6), "waves": (1,), "max_failures": 1}
    uid = start(released=False, careful=careful)
    seen = recorder(f"/v2/rollouts/{uid}", *node_paths(uid, *names[:2]))
    seen.look()
    pause_rollout(uid)
    resume_rollout(uid)
    ingestion.record_reports([report_of(uid, "n0000", Phase.FETCHING)])
    answer(uid, "n0000", Phase.FAILED, reason=Reason.FETCH_FAILED)
    advance_all([uid])
    answer(uid, "n0000", Phase.SUCCEEDED, installed(), seconds=1.5)
    silence("n0001")
    offline_nodes.declare_silent_nodes_offline()
    join("n0001")
    answer(uid, "n0001", Phase.SUCCEEDED, installed(), seconds=0.5)
    answer(uid, "n0002", Phase.FAILED, reason=Reason.LOAD_FAILED, message="no such symbol")
    roll_back_rollout(uid)
    answer(uid, "n0003", Phase.CANCELED)
    for name in names:
        answer(uid, name)
    assert rollout(uid).phase == "rolled_back"
    seen.check()


def test_a_node_was_what_it_was_in_all_its_life(recorder):
    (name,) = fleet(1)
    upload(version=2, content="c2")
    seen = recorder(f"/v2/nodes/{name}")
    seen.look()
    answer(start(), name, Phase.SUCCEEDED, installed())
    _drift(name)
    seen.look()
    ingestion.record_heartbeats([heartbeat_of(name)])
    answer(start(version=2), name, Phase.SUCCEEDED, installed(), installed(2, "c2"))
    drain_node(name)
    label_node(name, {"rack": "7"})
    activate_node(name)
    answer(start(action=Action.REMOVE), name, Phase.SUCCEEDED, installed(2, "c2"))
    decommission_node(name)
    join(name, modules=[installed(2, "c2")])
    seen.check()


def _drift(name):
    version = max(each.version for each in read() if each.stream == node_stream(name))
    drifted = NodeDrifted(
        node=name, module_name="greet", version=1, desired="load", observed="files", content_sha256="c1"
    )
    append(Append(node_stream(name), version, [drifted]))


def test_a_time_means_the_newest_event_by_then(then):
    fleet(1)
    uid = start()
    say(uid, "n0000")
    events = list(read())
    for each in events:
        assert position_at(each.recorded_at) == max(
            other.position for other in events if other.recorded_at <= each.recorded_at
        )
    newest = rfc3339(events[-1].recorded_at)
    assert then("/v2/nodes/n0000", newest) == then("/v2/nodes/n0000", head())


def test_a_time_outside_the_log(then, admin):
    fleet(1)
    uid = start()
    first, newest = next(read()).recorded_at, admin.get(f"/v2/rollouts/{uid}").json()
    assert position_at(first - timedelta(microseconds=1)) == 0
    assert then(f"/v2/rollouts/{uid}", "2999-01-01T00:00:00Z") == newest
    assert then(f"/v2/rollouts/{uid}", "2999-01-01T00:00:00.123456789+02:00") == newest
    error = admin.get("/v2/nodes/n0000", {"as_of": "1999-01-01T00:00:00Z"})
    assert (error.status_code, error.json()["error_code"]) == (404, "node_not_found")


def test_the_position_of_a_time_is_found_in_one_query(django_assert_num_queries):
    fleet(30)
    moment = [each.recorded_at for each in read()][20]
    with django_assert_num_queries(1):
        position_at(moment)


def test_before_it_existed_there_is_nothing(admin):
    fleet(1)
    before = head()
    uid = start()
    join("late")
    for path, code in (
        (f"/v2/rollouts/{uid}", "rollout_not_found"),
        (f"/v2/rollouts/{uid}/nodes/n0000", "rollout_not_found"),
        ("/v2/nodes/late", "node_not_found"),
        ("/v2/nodes/never", "node_not_found"),
        ("/v2/rollouts/never", "rollout_not_found"),
    ):
        for as_of in (0, before):
            answer = admin.get(path, {"as_of": as_of})
            assert (answer.status_code, answer.json()["error_code"]) == (404, code)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "-1",
        "1.5",
        "²",
        "1" * 30,
        "999999",
        "yesterday",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-02-30T00:00:00Z",
        "0001-01-01T00:00:00+05:00",
        "2026-01-01T00:00:00 02:00",
        "٢026-01-01T00:00:00Z",
    ],
)
def test_what_is_no_position_and_no_time_is_refused(admin, bad):
    fleet(1)
    uid = start()
    for path in (f"/v2/rollouts/{uid}", "/v2/nodes/n0000", f"/v2/rollouts/{uid}/nodes/n0000"):
        answer = admin.get(f"{path}?as_of={quote(bad)}")
        assert (answer.status_code, answer.json()["error_code"]) == (400, "invalid_request")
        assert "as_of: " in answer.json()["description"]


def test_what_has_been_is_not_waited_for(admin):
    fleet(1)
    answer = admin.get(f"/v2/rollouts/{start()}", {"as_of": head(), "wait": 1})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "invalid_request")


def test_what_was_has_an_etag_that_is_of_the_same_version(admin):
    fleet(1)
    path = f"/v2/rollouts/{start()}"
    live, position = admin.get(path)["ETag"], head()
    join("other")
    assert admin.get(path, {"as_of": head()})["ETag"] == admin.get(path, {"as_of": position})["ETag"] == live
    assert admin.get(path, {"as_of": position}, headers={"If-None-Match": live}).status_code == 304


def test_it_takes_as_many_queries_however_many_nodes_there_are(admin, django_assert_max_num_queries):
    names = fleet(60)
    uid = start(max_parallel=60)
    for name in names:
        say(uid, name)
    for path in (f"/v2/rollouts/{uid}", f"/v2/rollouts/{uid}/nodes/n0050", "/v2/nodes/n0050"):
        with django_assert_max_num_queries(8):
            assert admin.get(path, {"as_of": head()}).status_code == 200


def test_nothing_is_written(admin):
    fleet(1)
    uid = start()
    position = head()
    say(uid, "n0000", Phase.FAILED, reason=Reason.LOAD_FAILED)
    after = (head(), operation(uid, "n0000"))
    admin.get(f"/v2/rollouts/{uid}", {"as_of": position})
    assert (head(), operation(uid, "n0000")) == after
