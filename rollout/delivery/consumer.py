"""The control worker's own step: takes in reports and heartbeats in batches, and acts on them at once.

What is in the queue is taken, up to `PREFETCH` messages, waiting at most `LINGER_SECONDS` for more; recorded in one
transaction, and acknowledged after its commit. So a crash loses nothing, and may record a report twice, which changes
nothing.

What a worker that was killed had not acknowledged, the broker hands out again only after the `visibility_timeout`, ten
minutes. Nobody waits for that: the relay sends the command again within seconds, and the agent answers it from its
journal. A heartbeat is followed by the next one anyway.

Silence is judged in batches by the thread that takes in heartbeats: before each batch, all heartbeats that wait are taken in.
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
from redis.exceptions import RedisError

from api.failures import log_failure
from rollout.delivery.ingestion import heartbeats, reports
from rollout.delivery.ingestion.dropped import record_dropped
from rollout.delivery.outbox import publish_due, purge_queues, record_lost_outcomes
from rollout.messages import HEARTBEATS, REPORTS
from rollout.process import timeouts
from rollout.transport import DROPPED

logger = logging.getLogger(__name__)

PREFETCH = 500
#: A batch takes no more messages once its bodies have so many bytes: each takes many times that as Python objects.
BATCH_BYTES = 2_000_000
LINGER_SECONDS = 0.02
#: Shorter than that, what comes was there already, seconds.
AT_ONCE_SECONDS = 0.002
#: How often the thread looks whether it is to stop, and which nodes are silent, seconds.
IDLE_SECONDS = 0.5
#: A broker that takes longer to answer hangs, seconds.
ANSWER_SECONDS = 1.0
#: How long to wait before a broker or a database that is away is tried again, seconds.
RETRY_SECONDS = 1.0

Handler = Callable[[Sequence[Any]], None]
#: Called with the seconds since when the broker has answered all the time, once all messages that waited are taken in.
#: Returns True if it has more to do. Then it is called again as soon as what has come meanwhile is taken in.
Idle = Callable[[float], bool]


class ReportConsumers(bootsteps.StartStopStep):
    """Two threads beside the worker's own loop: one for reports, one for heartbeats and what silence means."""

    requires = ("celery.worker.consumer:Connection",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._threads: list[BatchConsumer] = []

    def start(self, parent: Any) -> None:
        self._threads = [
            BatchConsumer(parent.app, REPORTS, record_reports),
            BatchConsumer(parent.app, HEARTBEATS, record_heartbeats, idle=judge_silence),
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
    _publish_now()  # what the reports made room for


def record_heartbeats(bodies: Sequence[Any]) -> None:
    if heartbeats.record_heartbeats(bodies):
        _publish_now()  # what a node that has started missed


def judge_silence(heard_seconds: float) -> bool:
    """Declare a batch of silent nodes offline. Return True if there may be more of them.

    Judges none in its first three heartbeats after this thread was connected, or after the broker hung: it may have had
    nobody to heartbeat to.
    """
    record_lost_outcomes()
    silent = timeouts.declare_silent_nodes_offline(heard_seconds=heard_seconds)
    if silent:
        _tried(partial(purge_queues, silent), f"the queues of {len(silent)} silent nodes are not purged")
    return len(silent) == timeouts.DECLARED_AT_ONCE


def _publish_now() -> None:
    _tried(publish_due, "the relay publishes instead")


def _tried(step: Callable[[], Any], otherwise: str) -> None:
    """What is recorded stays so, and need not be taken in again, when the broker cannot be reached."""
    try:
        step()
    except (OperationalError, RedisError, OSError) as error:
        logger.warning("%s: %s", otherwise, error)


def _waiting(connection: Connection, queue: str) -> int:
    """How many messages wait in the queue. Raises: `RedisError`.

    Asked over a connection of its own: the channel's waits for messages.
    """
    channel: Any = connection.default_channel  # of the transport for Redis
    with channel.conn_or_acquire() as client:
        return int(client.llen(queue))


class BatchConsumer(threading.Thread):
    """Hands a queue's messages to `handler` in batches, for as long as the process lives."""

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
            except (OperationalError, RedisError) as error:  # the broker is away, which is foreseen: no traceback
                logger.warning("%s: the broker is away, trying again in %s s: %s", self.name, RETRY_SECONDS, error)
                self._begin_again()
            except Exception as error:  # noqa: BLE001  # the outermost loop: it is logged
                log_failure(logger, f"{self.name}: trying again in {RETRY_SECONDS} s", error)
                self._begin_again()
            finally:
                close_old_connections()

    def _begin_again(self) -> None:
        self._forget()  # not acknowledged: the broker hands it out again
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
            answers_since = looked_at = time.monotonic()
            is_behind = False
            with consumer:
                while not self.stopping.is_set():
                    began = time.monotonic()
                    is_due = self._idle is not None and (is_behind or began - looked_at >= IDLE_SECONDS)
                    # Asked, because a queue that seems empty may be one that nobody can reach.
                    waiting = _waiting(connection, self._queue) if is_due else 0
                    is_drained = self._collect(connection, LINGER_SECONDS if is_due else IDLE_SECONDS)
                    is_due = is_due and is_drained and len(self._batch) >= waiting
                    now = time.monotonic()
                    if now - began > IDLE_SECONDS + ANSWER_SECONDS:
                        answers_since = now
                    self._flush()
                    record_dropped()
                    if is_due and self._idle is not None:
                        looked_at = now
                        close_old_connections()
                        is_behind = self._idle(now - answers_since)

    def _take(self, body: Any, message: Message) -> None:
        self._batch.append((body, message))
        self._bytes += len(message.body or "")

    def _drop(self, message: Message, error: Exception) -> None:
        DROPPED.note(self._queue, "undecodable", error)
        message.ack()

    def _collect(self, connection: Connection, seconds: float) -> bool:
        """Fill the batch: wait `seconds` for a first message, a moment for more, and then take what is there.

        Whether the queue is empty now.
        """
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
            self._forget()

    def _forget(self) -> None:
        self._batch.clear()
        self._bytes = 0
