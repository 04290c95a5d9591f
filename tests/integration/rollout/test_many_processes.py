"""Three control workers and three relays over one database and one broker, as processes: nothing is released twice."""

import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager

import pytest
from kombu import Connection, Consumer, Queue

from eventstore import read
from rollout.domain.placement.events import OperationFinished, OperationReleased
from rollout.domain.retries import Retries
from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES, NodesReleased
from rollout.messages import REPORTS, Command, Phase, Reason, Report, from_json, queue_for, to_json
from tests.recorded_fleet import differences, fleet, installed, inventory, phases, rollout, start
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("committed_db")]

PARALLEL = 4


@pytest.fixture
def control_plane(broker, tmp_path):
    """All that runs beside the API, three of each."""
    environ = {**os.environ, "MODFLEET_BROKER_URL": broker.url, "MODFLEET_DATA_DIR": str(tmp_path)}
    worker = [sys.executable, "-m", "celery", "-A", "config", "worker", "-l", "WARNING"]
    relay = [sys.executable, "-m", "django", "relay"]
    with (tmp_path / "output").open("w") as output:
        processes = [
            subprocess.Popen([*words, *more], env=environ, stdout=output, stderr=output)
            for number in range(3)
            for words, more in ((worker, ["-n", f"control-{number}"]), (relay, []))
        ]
        yield
        for each in processes:
            each.terminate()
        codes = [each.wait(timeout=PATIENCE) for each in processes]
    assert codes == [0] * 6
    assert "Traceback" not in (tmp_path / "output").read_text()


class Agents(threading.Thread):
    """Every node answers each command at once, and a second time."""

    def __init__(self, url, names, answer):
        super().__init__(daemon=True)
        self.stopping = threading.Event()
        self.commands: Counter[tuple[str, int, int]] = Counter()
        self._url, self._names, self._answer = url, names, answer

    def run(self):
        with Connection(self._url) as connection:
            producer = connection.Producer(serializer="json")

            def take(body, message):
                command = from_json(Command, body[1]["command"])
                self.commands[command.node, command.generation, command.attempt] += 1
                for report in [self._report(command)] * 2:
                    producer.publish(to_json(report), exchange="", routing_key=REPORTS)
                message.ack()

            queues = [Queue(queue_for(name)) for name in self._names]
            with Consumer(connection, queues, callbacks=[take], accept=["json"]):
                while not self.stopping.is_set():
                    try:
                        connection.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue

    def _report(self, command):
        phase, reason = self._answer(command)
        return Report(
            rollout=command.rollout,
            node=command.node,
            module_name=command.module_name,
            generation=command.generation,
            attempt=command.attempt,
            phase=phase,
            reason=reason,
            seconds=0.1,
            inventory=inventory(installed()) if phase is Phase.SUCCEEDED else None,
        )


@contextmanager
def agents(broker, names, answer):
    thread = Agents(broker.url, names, answer)
    thread.start()
    try:
        yield thread
    finally:
        thread.stopping.set()
        thread.join(timeout=PATIENCE)
        assert not thread.is_alive()


def most_in_hand():
    """By the log: the most operations that were released and had not ended."""
    in_hand, most = set(), 0
    for each in read(event_classes=[OperationReleased, OperationFinished]):
        if isinstance(each.event, OperationReleased):
            assert each.event.node not in in_hand, "released twice"
            in_hand.add(each.event.node)
        else:
            in_hand.discard(each.event.node)
        most = max(most, len(in_hand))
    return most


def test_nothing_is_released_twice(broker, control_plane, waits):
    """Every third node fails at first, and is tried again once."""
    names = fleet(24)
    failing = set(names[::3])

    def answer(command):
        if command.node in failing and command.attempt == 1:
            return Phase.FAILED, Reason.FETCH_FAILED
        return Phase.SUCCEEDED, None

    careful = {"waves": ["50%"], "retries": Retries(limit=1, backoff_seconds=0.1)}
    uid = start(max_parallel=PARALLEL, careful=careful, released=False)
    with agents(broker, names, answer) as played:
        waits(lambda: rollout(uid).phase in FINAL_ROLLOUT_PHASES)
    assert (rollout(uid).phase, set(phases(uid).values())) == ("succeeded", {"succeeded"})
    released = Counter(node for each in read(event_classes=[NodesReleased]) for node in each.event.nodes)
    assert released == {name: 2 if name in failing else 1 for name in names}
    assert most_in_hand() <= PARALLEL
    assert set(played.commands) == {(name, 1, attempt + 1) for name in names for attempt in range(released[name])}
    assert differences() == {}
