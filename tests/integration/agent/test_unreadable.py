"""What cannot be read in a node's queues ends no agent, and keeps nothing else from being done."""

import pytest

from rollout.messages import Phase, cancel_queue_for, queue_for, to_json
from tests.envelopes import UNREADABLE, USELESS, mutations, task
from tests.integration.agent.test_worker import broker, patience, worker

__all__ = ["broker", "patience", "worker"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("queue", [queue_for("n1"), cancel_queue_for("n1")])
def test_the_agent_goes_on(worker, site, built, waits, queue):
    waits(worker.heartbeats)
    worker.push(queue, *UNREADABLE.values(), *USELESS.values(), *mutations(150, seed=3, of=task()))
    done, given_up = site.command(built("greet")), site.command(built("greet", 20000))
    worker.cancel(to_json(given_up))
    assert worker.final(given_up.rollout)[0].phase is Phase.CANCELED
    worker.send(to_json(done))
    assert worker.final(done.rollout)[0].phase in {
        Phase.SUCCEEDED,
        Phase.FAILED,
    }  # older than the cancel, by its number
    assert worker.process.poll() is None
    waits(lambda: worker.broker.call("HLEN", f"unacked.{queue_for('n1')}") == 0)
    assert worker.logged("consumer: Connection to broker lost") == 0
    assert worker.logged("No cancel is received") == 0


def test_what_was_fetched_with_it_is_not_lost(worker, site, built, waits):
    waits(worker.heartbeats)
    commands = [site.command(built("greet", version)) for version in (10000, 20000, 30000)]
    for command in commands:
        worker.push(queue_for("n1"), b"x", *list(UNREADABLE.values())[:5])
        worker.send(to_json(command))
    assert [worker.final(each.rollout)[0].phase for each in commands] == [Phase.SUCCEEDED] * 3
