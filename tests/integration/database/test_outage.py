"""A PostgreSQL that is stopped, paused, locked, full or has no connection left: what clients get, and how it ends."""

import http.client
import json
import select
import signal
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress

import psycopg
import pytest

from eventstore.conf import conf
from rollout.messages import REPORTS, queue_for
from tests.integration.database.conftest import started
from tests.waiting import PATIENCE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # it starts a dozen processes

METRICS_TOKEN = "token-of-the-scraper"
IMPATIENT = {
    "MODFLEET_METRICS_TOKEN": METRICS_TOKEN,
    "MODFLEET_DATABASE_POOL_SIZE": "2",
    "MODFLEET_DATABASE_POOL_SECONDS": "2",
    "MODFLEET_DATABASE_LOCK_SECONDS": "0.5",
}


@pytest.fixture(scope="module")
def api(plane):
    with plane.api(**IMPATIENT) as port:
        yield port


@pytest.fixture
def ask(plane, api):
    """Status, document and headers of an answer."""

    def asked(path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", api, timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {plane.token}", "Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
        response = connection.getresponse()
        document = json.loads(response.read())
        connection.close()
        return response.status, document, response.headers

    return asked


FREEZE = {"reason": "test"}


def causes(ask):
    return ask("/readyz")[1]["causes"]


def refused(answer, status, code):
    assert (answer[0], answer[1].get("error_code")) == (status, code), answer[1]
    assert int(answer[2]["Retry-After"]) > 0


def test_stopped_and_started(plane, ask):
    assert ask("/v2/nodes")[0] == 200
    plane.database.stop()
    refused(ask("/v2/nodes"), 503, "database_unavailable")
    refused(ask("/v2/freeze", FREEZE), 503, "database_unavailable")
    wait_for(lambda: causes(ask).get("database") == "unreachable")
    plane.database.start()
    wait_for(lambda: ask("/v2/nodes")[0] == 200)
    wait_for(lambda: "database" not in causes(ask))


def test_a_stopped_database_is_told_to_who_scrapes_by_the_token(plane, api, ask):
    def scraped():
        connection = http.client.HTTPConnection("127.0.0.1", api, timeout=PATIENCE)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text

    status, text = scraped()
    assert (status, "modfleet_database_up 1.0" in text) == (200, True)
    plane.database.stop()
    status, text = scraped()
    assert (status, "modfleet_database_up 0.0" in text, "modfleet_nodes{" in text) == (200, True, False)
    refused(ask("/metrics"), 503, "database_unavailable")
    plane.database.start()
    wait_for(lambda: "modfleet_database_up 1.0" in scraped()[1])
    wait_for(lambda: ask("/v2/nodes")[0] == 200)


def test_paused(plane, api, ask):
    """Requests that have the pool's connections wait for it, and all others are told to come again."""
    assert ask("/v2/nodes")[0] == 200
    plane.database.signal(signal.SIGSTOP)
    with ExitStack() as opened:
        opened.callback(plane.database.signal, signal.SIGCONT)
        asked = [opened.enter_context(_asking(api, plane.token)) for _ in range(6)]
        wait_for(lambda: len(select.select([each.sock for each in asked], [], [], 0)[0]) >= 4)
        wait_for(lambda: causes(ask).get("database") == "no_answer")
        assert ask("/healthz")[0] == 200
        plane.database.signal(signal.SIGCONT)
        statuses = Counter(each.getresponse().status for each in asked)
    assert set(statuses) <= {200, 503}
    assert statuses[503] >= 4
    wait_for(lambda: ask("/v2/nodes")[0] == 200)


@contextmanager
def _asking(port, token):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/v2/nodes", headers={"Authorization": f"Bearer {token}"})
    yield connection
    connection.close()


def test_locked_for_long(plane, ask):
    with psycopg.connect(plane.database.url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [conf().append_lock])
        refused(ask("/v2/freeze", FREEZE), 503, "database_unavailable")
        assert ask("/v2/nodes")[0] == 200
        other.execute("LOCK TABLE eventstore_event, operations_heartbeat IN ACCESS EXCLUSIVE MODE")
        wait_for(lambda: causes(ask).get("database") == "locked")
        other.rollback()
    assert ask("/v2/nodes")[0] == 200


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON eventstore_event EXECUTE FUNCTION full_disk();
CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON operations_heartbeat EXECUTE FUNCTION full_disk()
"""


def test_full(plane, ask):
    """With what the server says then; a disk that is really full would take root to make."""
    with psycopg.connect(plane.database.url, autocommit=True) as database:
        database.execute(FULL)
        refused(ask("/v2/freeze", FREEZE), 507, "storage_full")
        wait_for(lambda: causes(ask).get("database") == "full")
        database.execute("DROP FUNCTION full_disk CASCADE")
    wait_for(lambda: "database" not in causes(ask))


ITS_OWN = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'api'"


def test_no_connection_is_left(plane, ask):
    with ExitStack() as taken:
        taken.enter_context(psycopg.connect(plane.database.url, autocommit=True)).execute(ITS_OWN)
        with suppress(psycopg.OperationalError):
            for _ in range(100):
                taken.enter_context(psycopg.connect(plane.database.url))
        refused(ask("/v2/nodes"), 503, "database_unavailable")
        wait_for(lambda: causes(ask).get("database") == "unreachable")
    wait_for(lambda: ask("/v2/nodes")[0] == 200)


def outbox(plane):
    """Of the commands in it: how many are held by a relay, and how many were published."""
    with psycopg.connect(plane.database.url) as database:
        query = "SELECT count(lease), count(published_at) FROM rollout_dispatch"
        return database.execute(query).fetchone()


@pytest.fixture
def fresh(tmp_path):
    """A control plane whose commands no relay has published yet."""
    with started(tmp_path) as made:
        yield made


def test_a_relay_notes_what_it_held_when_the_database_was_lost(fresh, broker):
    """Lost while it publishes to a broker that hangs: the commands are out long before the lease would have ended."""
    queues = [queue_for(f"n{number:04d}") for number in range(3)]
    broker.process.send_signal(signal.SIGSTOP)
    with fresh.process("django", "relay", name="relay", MODFLEET_BROKER_URL=broker.url):
        wait_for(lambda: outbox(fresh) == (3, 0))
        with psycopg.connect(fresh.database.url) as database:
            database.execute("UPDATE rollout_dispatch SET leased_until = now() + interval '1 hour'")
        fresh.database.stop()
        broker.process.send_signal(signal.SIGCONT)
        fresh.database.start()
        wait_for(lambda: outbox(fresh) == (0, 3))
    assert [broker.waiting(each) for each in queues] == [1, 1, 1]


def test_all_that_runs_goes_on_when_the_database_is_back(plane, broker):
    uid, reports = plane.other_rollout("late")
    worker, carried = ["celery", "-A", "config", "worker", "-l", "WARNING"], {"MODFLEET_BROKER_URL": broker.url}
    with plane.process("django", "relay", name="relay", **carried), plane.process(*worker, name="worker", **carried):
        wait_for(lambda: broker.waiting(queue_for("n0000")) >= 1)
        plane.database.stop()
        broker.send(REPORTS, *reports)
        wait_for(lambda: all(word in plane.output() for word in ("the relay retries", "trying again")))
        plane.database.start()
        wait_for(lambda: plane.phase(uid) == "succeeded")
    assert "Traceback" not in plane.output()
