"""However many clients there are, the database sees no more connections than the pool has, and one that listens."""

import pytest

from rollout.messages import REPORTS, queue_for
from tests.crowd import ask_all, watched
from tests.waiting import PATIENCE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # it starts a dozen processes

#: What docs/howto/production.md says of each process.
POOL, LISTENER = 16, 1
WORKER, RELAY, COMMAND = 4 + LISTENER, 1 + LISTENER, 1


@pytest.fixture(scope="module")
def api(plane):
    with plane.api(MODFLEET_DATABASE_POOL_SIZE=str(POOL)) as port:
        yield port


def test_clients_that_wait_hold_no_connection(plane, api):
    with watched(plane.database.url) as activity:
        answers = ask_all(api, [f"/v2/rollouts/{plane.rollout}?wait=5"] * 500, token=plane.token)
    assert answers == {200: 500}
    assert 0 < activity.most["api"] <= POOL + LISTENER


def test_clients_that_read_share_the_pool(plane, api):
    with watched(plane.database.url) as activity:
        answers = ask_all(api, ["/v2/nodes"] * 150, token=plane.token)
    assert answers == {200: 150}
    assert 0 < activity.most["api"] <= POOL + LISTENER


def test_the_other_processes_have_as_many_as_the_docs_say(plane, broker):
    uid, reports = plane.other_rollout("counted")
    worker, carried = ["celery", "-A", "config", "worker", "-l", "WARNING"], {"MODFLEET_BROKER_URL": broker.url}
    with (
        watched(plane.database.url) as activity,
        plane.process("django", "relay", name="relay", **carried),
        plane.process(*worker, name="worker", **carried),
    ):
        wait_for(lambda: broker.waiting(queue_for("n0000")) >= 1)
        broker.send(REPORTS, *reports)
        wait_for(lambda: plane.phase(uid) == "succeeded")
        with plane.process("django", "verify_log", name="command") as command:
            command.wait(timeout=PATIENCE)
    assert 0 < activity.most["relay"] <= RELAY
    assert 0 < activity.most["worker"] <= WORKER
    assert activity.most["command"] <= COMMAND
