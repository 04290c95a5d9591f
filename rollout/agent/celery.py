"""The agent's Celery app: `celery -A rollout.agent worker`, configured by the environment alone."""

import logging
import os
from typing import Any

from celery import Celery, bootsteps
from celery.signals import setup_logging
from kombu import Queue

from rollout.agent.control_plane.api import trust_documents
from rollout.agent.control_plane.identity import IdentityError
from rollout.agent.control_plane.publisher import Publisher, broker_time, transport_options
from rollout.agent.control_plane.trust import Trust
from rollout.agent.doctor import run_doctor
from rollout.agent.node.examinations import Examinations
from rollout.agent.node.heartbeat import Heartbeats
from rollout.agent.node.start_checks import StartChecks
from rollout.agent.operations.cancel import Cancels
from rollout.agent.operations.expiry import Expiry
from rollout.agent.operations.runner import Runner
from rollout.agent.settings import AgentSettings, SettingsError, require_startable, settings_from
from rollout.logs import formatter
from rollout.messages import queue_for
from rollout.transport import TaskConsumer

log = logging.getLogger(__name__)


class AgentApp(Celery):
    """Celery, with the objects that the worker's tasks use. They are set before the first task."""

    trust: Trust
    runner: Runner
    publisher: Publisher
    heartbeats: Heartbeats


class QuietConsumer(TaskConsumer):
    """Consumes one queue and talks to no other worker: Celery has command line options for this, but no settings."""

    def __init__(self, on_task_request: Any, *, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        quiet = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        super().__init__(on_task_request, worker_options={**(worker_options or {}), **quiet}, **options)


class Agent(bootsteps.StartStopStep):
    """The node of this worker. Cleans it up before the first command, then sends heartbeats and receives cancels."""

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        trust: Trust = worker.app.trust
        settings = trust.settings
        examinations = Examinations(
            lambda: run_doctor(settings), changed=self._send_findings, interval=settings.beat_seconds
        )
        worker.app.runner = self._runner = Runner(
            settings,
            expiry=Expiry(lambda: broker_time(trust)),
            trust=trust,
            examinations=examinations,
            start_checks=StartChecks(settings, changed=self._send_findings),
        )
        worker.app.publisher = Publisher(trust)
        worker.app.heartbeats = self._heartbeats = Heartbeats(
            lambda hello: self._runner.heartbeat(hello=hello),
            Publisher(trust),
            interval=settings.beat_seconds,
            is_silent=self._runner.node.is_silent,
        )
        self._cancels = Cancels(self._runner, trust, rotated=self._use_new_credentials)
        self._app = worker.app

    def start(self, worker: Any) -> None:
        try:
            self._runner.recover()
        except OSError as error:
            log.error("This node cannot carry out commands, each will fail: %s", error)  # noqa: TRY400 - likewise
        self._heartbeats.start()
        self._cancels.start()

    def _send_findings(self) -> None:
        self._heartbeats.soon()

    def _use_new_credentials(self) -> None:
        # Celery reads it at its next connection. The next heartbeat tells the control plane that the old key may end.
        self._app.conf.broker_url = self._app.trust.broker_url()
        self._heartbeats.soon()

    def stop(self, worker: Any) -> None:
        self._cancels.stop()
        self._heartbeats.stop()
        worker.app.publisher.close()


class TakeBack(bootsteps.StartStopStep):
    """At each connection: take the command first that a killed worker did not acknowledge, and send a heartbeat.

    Only this worker consumes the queue, one command at a time, so an unacknowledged command is not in progress.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, consumer: Any) -> None:
        channel = consumer.connection.default_channel
        if hasattr(channel, "unacked_index_key"):  # kombu's Redis transport; AMQP brokers do this themselves
            with channel.conn_or_acquire() as client:
                for tag in client.zrange(channel.unacked_index_key, 0, -1):
                    channel.qos.restore_by_tag(tag, client)
        consumer.app.heartbeats.soon()


def make_app(settings: AgentSettings) -> AgentApp:
    """Return the app of the agent with these settings. Raises: `IdentityError`."""
    queue = queue_for(settings.node)
    trust = Trust(settings, learn=lambda: trust_documents(settings))
    # No fixups: with DJANGO_SETTINGS_MODULE in the environment Celery would import Django.
    made = AgentApp("rollout.agent", broker=trust.broker_url(), fixups=[], include=["rollout.agent.tasks"])
    made.trust = trust
    made.conf.update(
        accept_content=["json"],
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_transport_options=transport_options(settings.node),
        task_acks_late=True,
        task_create_missing_queues=False,
        task_default_queue=queue,
        task_ignore_result=True,
        task_queues=[Queue(queue, routing_key=queue)],
        task_serializer="json",
        worker_concurrency=1,
        worker_consumer=f"{__name__}:QuietConsumer",
        worker_disable_rate_limits=True,
        worker_enable_remote_control=False,
        worker_pool="solo",
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
    )
    made.steps["worker"].add(Agent)
    made.steps["consumer"].add(TakeBack)
    return made


def _set_up_logging(*, loglevel: int, **_: Any) -> None:
    """Replace Celery's own logging."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(agent_settings.log_format))
    logging.basicConfig(level=loglevel, handlers=[handler], force=True)


setup_logging.connect(_set_up_logging)
try:
    agent_settings = settings_from(os.environ)
    require_startable(agent_settings)
    app = make_app(agent_settings)
except (SettingsError, IdentityError) as error:
    raise SystemExit(str(error)) from error
