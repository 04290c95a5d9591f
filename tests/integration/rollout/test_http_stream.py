"""A rollout's stream over the real server: whoever is cut off and resumes sees every event once, in order."""

import json
import os
import random
import threading
from contextlib import contextmanager

import pytest
from django.db import connections

from accounts.roles import Role
from accounts.services import create_user
from rollout.delivery import ingestion
from rollout.domain.errors import RolloutError
from rollout.domain.retries import Retries
from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES
from rollout.domain.strategy import Gate
from rollout.messages import Phase, Reason
from rollout.models import Operation, TimelineEntry
from rollout.process import timeouts
from rollout.process.advance import advance_all
from rollout.queries.operations import IN_PROGRESS
from rollout.queries.rollouts import unfinished_rollouts
from rollout.services.rollouts import pause_rollout, promote_rollout, resume_rollout
from tests.plugins.cast import PASSWORD, basic
from tests.plugins.databases import at_once
from tests.plugins.server import THREADS, serving
from tests.recorded_fleet import fleet, report_of, rollout, say, start
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow

CAREFUL = {
    "canary": 1,
    "waves": (4,),
    "gate": Gate.MANUAL,
    "max_failures": "100%",
    "retries": Retries(limit=1, backoff_seconds=0.01),
}


@pytest.fixture
def api(committed_db, tmp_path):
    create_user(name="alice", email="a@example.com", password=PASSWORD, role=Role.ADMIN, by=None)
    environment = {**os.environ, "MODFLEET_DATA_DIR": str(tmp_path), "MODFLEET_ALLOWED_HOSTS": "127.0.0.1"}
    with serving(environment, tmp_path) as served:
        yield served


class Reader:
    """An SSE client that is cut off again and again, anywhere, also within an event."""

    def __init__(self, server, uid, *, seed):
        self.server, self.uid, self.random = server, uid, random.Random(seed)
        self.events, self.cuts = [], 0

    def read_to_the_end(self):
        while not self.is_at_the_end_within(self.random.randint(1, 4000)):
            self.cuts += 1
        return self

    def is_at_the_end_within(self, most):
        """Reads; whether the stream has come to its end before so many bytes."""
        connection = self.server.connect()
        try:
            response = self._open(connection)
            received = b""
            while len(received) < most and (some := response.read1(most - len(received))):
                received += some
            for block in received.split(b"\n\n")[:-1]:
                self._take(block.decode())
            return len(received) < most
        finally:
            connection.close()

    def _open(self, connection):
        last = {"Last-Event-ID": str(self.events[-1]["position"])} if self.events else {}
        headers = {"Authorization": basic("alice"), "Accept": "text/event-stream", **last}
        connection.request("GET", f"/v2/rollouts/{self.uid}/events", headers=headers)
        return connection.getresponse()

    def _take(self, block):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            event = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (str(event["position"]), event["type"])
            self.events.append(event)


@contextmanager
def cluster(uid):
    """Two control workers, a relay and a person, each in a thread, until the rollout has ended."""
    ended = threading.Event()
    threads = [
        threading.Thread(target=_until, args=(ended, work))
        for work in (lambda: _report(uid), lambda: _report(uid), _sweep, lambda: _steer(uid))
    ]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        ended.set()
        for each in threads:
            each.join(timeout=PATIENCE)


def _until(ended, work):
    try:
        while not ended.wait(0.02):
            work()
    finally:
        connections.close_all()


def _report(uid):
    """What the nodes in hand say: each a little work, some a failure."""
    names = Operation.objects.filter(rollout=uid, phase__in=IN_PROGRESS).values_list("node", flat=True)
    for name in list(names)[:3]:
        phase = random.choice([Phase.FETCHING, Phase.LOADING, Phase.SUCCEEDED, Phase.FAILED])
        reason = Reason.FETCH_FAILED if phase == Phase.FAILED else None
        ingestion.record_reports([report_of(uid, name, phase, reason=reason)])


def _sweep():
    timeouts.end_overdue_operations()
    advance_all(unfinished_rollouts())


def _steer(uid):
    for verb in (pause_rollout, resume_rollout, promote_rollout):
        try:
            verb(uid)
        except RolloutError:
            return


def timeline(uid):
    return list(TimelineEntry.objects.filter(rollout=uid).order_by("position").values_list("position", flat=True))


def test_every_event_is_seen_once_and_in_order_however_often_the_client_is_cut_off(api):
    fleet(20)
    uid = start(careful=CAREFUL, max_parallel=4)
    readers = [Reader(api, uid, seed=seed) for seed in range(3)]
    with cluster(uid):
        at_once(*(each.read_to_the_end for each in readers))
    assert rollout(uid).phase in FINAL_ROLLOUT_PHASES
    for each in readers:
        assert each.cuts > 5
        seen = [event["position"] for event in each.events]
        assert seen == timeline(uid)[: len(seen)]  # a node may say something more after the end
        assert {event["type"] for event in each.events} >= {
            "rollout.started.v1",
            "rollout.wave_started.v1",
            "rollout.wave_gated.v1",
            "rollout.wave_passed.v1",
            "rollout.paused.v1",
            "rollout.resumed.v1",
            "rollout.nodes_retried.v1",
            "operation.finished.v1",
            "rollout.finished.v1",
        }


def test_a_client_that_has_seen_all_of_an_ended_rollout_is_told_not_to_come_again(api):
    (name,) = fleet(1)
    uid = start()
    say(uid, name)
    Reader(api, uid, seed=0).read_to_the_end()
    headers = {"Authorization": basic("alice"), "Last-Event-ID": str(timeline(uid)[-1])}
    response, body = api.ask("GET", f"/v2/rollouts/{uid}/events", headers=headers)
    assert (response.status, body) == (204, b"")


def test_clients_that_were_cut_off_keep_no_others_from_being_answered(api):
    """Their streams end, though the rollout goes on."""
    fleet(1)
    uid = start()
    for seed in range(3 * THREADS):
        assert not Reader(api, uid, seed=seed).is_at_the_end_within(10)
    assert api.ask("GET", f"/v2/rollouts/{uid}", headers={"Authorization": basic("alice")})[0].status == 200
