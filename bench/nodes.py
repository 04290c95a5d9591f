"""Many nodes in one Celery worker: the agent's own app, task, runner, journal, publisher and heartbeats, a set of them per node.

A hundred agents as processes would measure how two cores start a hundred interpreters. So a few workers each consume
the queues of many nodes, one command at a time, and hand each command to the runner of its node.

celery -A bench.nodes worker          with the first node's settings in the environment, and all names in BENCH_NODES
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery import bootsteps
from kombu import Queue

from rollout.agent.celery import Agent, TakeBack, agent_settings, app
from rollout.agent.control_plane.publisher import Publisher
from rollout.agent.control_plane.trust import Trust
from rollout.agent.node.heartbeat import Heartbeats
from rollout.agent.operations.runner import Runner
from rollout.agent.settings import AgentSettings
from rollout.messages import Command, Heartbeat, Report, Reports, queue_for
from rollout.signing import Purpose

names = os.environ["BENCH_NODES"].split(",")
folder = Path(os.environ["BENCH_FOLDER"])


def modules_of(node: str, folder: Path) -> Path:
    """Where that node's modules lie."""
    return folder / node / "modules"


def identity_of(node: str, folder: Path) -> Path:
    """The file with that node's identity."""
    return folder / node / "identity.json"


def settings_of(node: str) -> AgentSettings:
    return replace(
        agent_settings,
        node=node,
        modules_dir=modules_of(node, folder),
        journal_dir=folder / node / "journal",
        identity_file=identity_of(node, folder),
        host_id=node,
    )


class SharedBroker(Trust):
    """The identity of one node, with the broker's user of the whole worker."""

    def broker_url(self) -> str:
        return self.settings.broker_url


class Trusts(SharedBroker):
    """Signs and verifies for all nodes: each message with the identity of the node that it names."""

    def __init__(self, settings: AgentSettings) -> None:
        super().__init__(settings_of(settings.node))
        self.by_node = {name: SharedBroker(settings_of(name)) for name in names}

    def signed(self, message: Reports | Heartbeat) -> list[Any]:
        node = message.node if isinstance(message, Heartbeat) else message.reports[0].node
        return self.by_node[node].signed(message)

    def opened(self, body: Any, *purposes: Purpose) -> tuple[Purpose, Any]:
        return self.by_node[body["node"]].opened(body, *purposes)


class Runners:
    """Stands where the agent's task expects its one runner."""

    def __init__(self) -> None:
        self.by_node = {name: Runner(settings_of(name), trust=SharedBroker(settings_of(name))) for name in names}

    def execute(self, command: Command, *, report: Callable[[Report], None]) -> Report | None:
        return self.by_node[command.node].execute(command, report=report)


class Nodes(bootsteps.StartStopStep):
    """All nodes of this worker, beating."""

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        worker.app.runner = self._runners = Runners()
        worker.app.trust = Trusts(agent_settings)
        worker.app.publisher = Publisher(worker.app.trust)
        self._heartbeats = [_heartbeats_of(runner) for runner in self._runners.by_node.values()]

    def start(self, worker: Any) -> None:
        for runner in self._runners.by_node.values():
            runner.recover()
        for each in self._heartbeats:
            each.start()

    def stop(self, worker: Any) -> None:
        for each in self._heartbeats:
            each.stop()
        worker.app.publisher.close()


def _heartbeats_of(runner: Runner) -> Heartbeats:
    settings = runner.node.settings
    return Heartbeats(
        lambda hello: runner.heartbeat(hello=hello), Publisher(runner.node.trust), interval=settings.beat_seconds
    )


app.steps["worker"].discard(Agent)
app.steps["worker"].add(Nodes)
app.steps["consumer"].discard(TakeBack)
app.conf.task_queues = [Queue(queue_for(name), routing_key=queue_for(name)) for name in names]
