"""The control worker's own step: consumes reports and heartbeats in batches, and acts on them at once.

A batch has up to `PREFETCH` messages; the consumer waits at most `LINGER_SECONDS` for more. A batch is recorded in one
transaction and acknowledged after the commit. So a crash loses no message. It may record a report twice, which changes
nothing.

The broker delivers the unacknowledged messages of a killed worker again only after the `visibility_timeout`, ten minutes.
Nothing waits for that: the relay sends the command again within seconds, and the agent answers it from its journal. A
heartbeat is followed by the next one.

The thread that consumes heartbeats also declares silent nodes offline, in batches. Before each batch it consumes all
heartbeats that wait. It declares none while the broker is full: then the broker refuses heartbeats.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from celery import Celery, bootsteps
from django.db import close_old_connections
from kombu import Connection, Consumer, Queue
from kombu.exceptions import OperationalError
from kombu.message import Message
from redis.exceptions import OutOfMemoryError, RedisError

from api.failures import log_failure
from rollout.delivery.ingestion import heartbeats, reports
from rollout.delivery.ingestion.dropped import record_dropped
from rollout.delivery.outbox import publish_due, purge_queues, record_lost_outcomes
from rollout.messages import HEARTBEATS, REPORTS
from rollout.process import offline_nodes
from rollout.tls import in_words
from rollout.transport import DROPPED

logger = logging.getLogger(__name__)

PREFETCH = 500
#: A batch takes no more messages when its bodies have so many bytes: as Python objects they take many times as much.
BATCH_BYTES = 2_000_000
LINGER_SECONDS = 0.02
#: The shortest wait for a message, seconds: a message that arrives sooner was there already.
AT_ONCE_SECONDS = 0.002
#: How often the thread checks if it must stop, and which nodes are silent, seconds.
IDLE_SECONDS = 0.5
#: A broker that takes longer to answer is stuck, seconds.
ANSWER_SECONDS = 1.0
#: A message for the test if the broker is full. Nearly every heartbeat is smaller.
PROBE = "control.probe"
PROBE_BYTES = 64 * 1024
#: The wait before the next attempt when the broker or the database is away, seconds.
RETRY_SECONDS = 1.0

Handler = Callable[[Sequence[Any]], None]
#: Called when no message waits, with the seconds for which the broker has answered without a break. Returns True if there
#: is more to do. Then it is called again as soon as the messages that arrived in between are consumed.
Idle = Callable[[float], bool]


class ReportConsumers(bootsteps.StartStopStep):
    """Two threads next to the worker's own loop: one for reports, one for heartbeats and silent nodes."""

    requires = ("celery.worker.consumer:Connection",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._threads: list[BatchConsumer] = []

    def start(self, parent: Any) -> None:
        self._threads = [
            BatchConsumer(parent.app, REPORTS, record_reports),
            BatchConsumer(parent.app, HEARTBEATS, record_heartbeats, idle=declare_silent_nodes),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, parent: Any) -> None:
        for thread in self._threads:
            thread.stopping.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    shutdown = stop


def record_reports(bodies: Sequence[Any]) -> None:
    reports.record_reports(bodies)
    _publish_now()  # commands that the reports have released


def record_heartbeats(bodies: Sequence[Any]) -> None:
    if heartbeats.record_heartbeats(bodies):
        _publish_now()  # commands that a restarted node has missed


def declare_silent_nodes(heard_seconds: float) -> bool:
    """Declare a batch of silent nodes offline. Return True if there may be more of them.

    A node is not judged for its first three heartbeat intervals after this thread was connected, or after the broker was
    stuck or full: its heartbeats may have had no consumer. The same holds after the database's clock was set: otherwise all
    nodes would be silent at once.
    """
    record_lost_outcomes()
    silent = offline_nodes.declare_silent_nodes_offline(heard_seconds=heard_seconds)
    if silent:
        _tried(partial(purge_queues, silent), f"the queues of {len(silent)} silent nodes are not purged")
    return len(silent) == offline_nodes.DECLARED_AT_ONCE


def _publish_now() -> None:
    _tried(publish_due, "the relay will publish")


def _tried(step: Callable[[], Any], otherwise: str) -> None:
    """Run `step`. If the broker cannot be reached, log `otherwise`: the batch is recorded and must not be consumed again."""
    try:
        step()
    except (OperationalError, RedisError, OSError) as error:
        logger.warning("%s: %s", otherwise, error)


def _waiting(connection: Connection, queue: str) -> int:
    """Return how many messages wait in the queue. Raises: `RedisError`.

    Uses another connection, because the channel's own connection waits for messages.
    """
    channel: Any = connection.default_channel  # of the transport for Redis
    with channel.conn_or_acquire() as client:
        return int(client.llen(queue))


def _has_room(connection: Connection) -> bool:
    """Return True if the broker accepts a message. Raises: `RedisError`."""
    channel: Any = connection.default_channel  # of the transport for Redis
    with channel.conn_or_acquire() as client:
        try:
            client.set(PROBE, bytes(PROBE_BYTES))
        except OutOfMemoryError:
            return False
        client.delete(PROBE)
    return True


class BatchConsumer(threading.Thread):
    """Gives a queue's messages to `handler` in batches, as long as the process lives."""

    def __init__(self, app: Celery, queue: str, handler: Handler, *, idle: Idle | None = None) -> None:
        super().__init__(name=f"consume-{queue}", daemon=True)
        self.stopping = threading.Event()
        self._app = app
        self._queue = queue
        self._handler = handler
        self._idle = idle
        self._batch: list[tuple[Any, Message]] = []
        self._bytes = 0

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                self._consume()
            except (OperationalError, RedisError) as error:  # the broker is away: no traceback
                words = in_words(error, "MODFLEET_BROKER_CA")
                logger.warning("%s: the broker is away, trying again in %s s: %s", self.name, RETRY_SECONDS, words)
                self._restart()
            except Exception as error:  # noqa: BLE001  # the outermost loop: it is logged
                log_failure(logger, f"{self.name}: trying again in {RETRY_SECONDS} s", error)
                self._restart()
            finally:
                close_old_connections()

    def _restart(self) -> None:
        self._clear()  # not acknowledged: the broker delivers the messages again
        self.stopping.wait(RETRY_SECONDS)

    def _consume(self) -> None:
        with self._app.connection_for_read() as connection:
            queue = Queue(self._queue, routing_key=self._queue)
            consumer = Consumer(
                connection,
                [queue],
                callbacks=[self._take],
                on_decode_error=self._drop,
                accept=["json"],
                prefetch_count=PREFETCH,
            )
            answers_since = idle_at = time.monotonic()
            is_behind = False
            with consumer:
                while not self.stopping.is_set():
                    began = time.monotonic()
                    is_due = self._idle is not None and (is_behind or began - idle_at >= IDLE_SECONDS)
                    # Ask for the length: a queue that seems empty may be one that cannot be reached.
                    waiting = _waiting(connection, self._queue) if is_due else 0
                    is_full = is_due and not _has_room(connection)
                    is_drained = self._collect(connection, LINGER_SECONDS if is_due else IDLE_SECONDS)
                    is_due = is_due and is_drained and len(self._batch) >= waiting
                    now = time.monotonic()
                    if is_full or now - began > IDLE_SECONDS + ANSWER_SECONDS:
                        answers_since = now
                    self._flush()
                    record_dropped()
                    if is_due and self._idle is not None:
                        idle_at = now
                        close_old_connections()
                        is_behind = self._idle(now - answers_since)

    def _take(self, body: Any, message: Message) -> None:
        self._batch.append((body, message))
        self._bytes += len(message.body or "")

    def _drop(self, message: Message, error: Exception) -> None:
        DROPPED.note(self._queue, "undecodable", error)
        message.ack()

    def _collect(self, connection: Connection, seconds: float) -> bool:
        """Fill the batch: wait `seconds` for a first message, then `LINGER_SECONDS` for more. Return True if the queue is
        empty."""
        timeout, end = seconds, None
        while len(self._batch) < PREFETCH and self._bytes < BATCH_BYTES:
            try:
                connection.drain_events(timeout=timeout)
            except TimeoutError:
                return True
            end = end or time.monotonic() + LINGER_SECONDS
            timeout = max(end - time.monotonic(), AT_ONCE_SECONDS)
        return False

    def _flush(self) -> None:
        if self._batch:
            close_old_connections()
            self._handler([body for body, _ in self._batch])
            for _, message in self._batch:
                message.ack()
            self._clear()

    def _clear(self) -> None:
        self._batch.clear()
        self._bytes = 0
