"""The control worker's own step: takes in reports and beats in batches, and acts on them at once.

What is in the queue is taken, up to `PREFETCH` messages, or what comes within `LINGER_SECONDS`; recorded in one
transaction, and acknowledged after its commit. So a crash loses nothing, and may record a report twice, which changes
nothing.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery, bootsteps
from django.db import close_old_connections
from kombu import Connection, Consumer, Queue
from kombu.message import Message

from rollout import services
from rollout.dispatch import publish_due
from rollout.messages import BEATS, REPORTS

logger = logging.getLogger(__name__)

PREFETCH = 500
LINGER_SECONDS = 0.02
#: How long a queue must stay silent before the thread looks whether it is to stop, seconds.
IDLE_SECONDS = 0.5
#: How long to wait before a broker or a database that is away is tried again, seconds.
RETRY_SECONDS = 1.0

Handler = Callable[[Sequence[Any]], None]


class ReportConsumers(bootsteps.StartStopStep):
    """Two threads beside the worker's own loop: one for reports, one for beats and what silence means."""

    requires = ("celery.worker.consumer:Connection",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._threads: list[BatchConsumer] = []

    def start(self, parent: Any) -> None:
        self._threads = [
            BatchConsumer(parent.app, REPORTS, _record_reports),
            BatchConsumer(parent.app, BEATS, services.record_beats, idle=Silence().look),
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


def _record_reports(bodies: Sequence[Any]) -> None:
    services.record_reports(bodies)
    publish_due()  # what the reports made room for goes out now; the relay would send it a moment later


class Silence:
    """Judges which nodes are offline: not in the first three beats of this process, nor while beats are waiting."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def look(self) -> None:
        """Called when no beat is waiting."""
        if time.monotonic() - self._started > services.longest_silence():
            services.declare_silent_nodes_offline()


class BatchConsumer(threading.Thread):
    """Hands a queue's messages to `handler` in batches, for as long as the process lives."""

    def __init__(self, app: Celery, queue: str, handler: Handler, *, idle: Callable[[], None] | None = None) -> None:
        super().__init__(name=f"consume-{queue}", daemon=True)
        self.stopping = threading.Event()
        self._app = app
        self._queue = queue
        self._handler = handler
        self._idle = idle
        self._batch: list[tuple[Any, Message]] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                self._consume()
            except Exception:
                logger.exception("%s: trying again in %s s", self.name, RETRY_SECONDS)
                self._batch.clear()  # not acknowledged: the broker hands it out again
                self.stopping.wait(RETRY_SECONDS)
            finally:
                close_old_connections()

    def _consume(self) -> None:
        with self._app.connection_for_read() as connection:
            queue = Queue(self._queue, routing_key=self._queue)
            with Consumer(
                connection, [queue], callbacks=[self._take], accept=["json"], prefetch_count=PREFETCH
            ):
                while not self.stopping.is_set():
                    self._collect(connection)
                    self._flush()

    def _take(self, body: Any, message: Message) -> None:
        self._batch.append((body, message))

    def _collect(self, connection: Connection) -> None:
        """Fill the batch: wait for a first message, then only for those that are about to come."""
        timeout = IDLE_SECONDS
        while len(self._batch) < PREFETCH:
            try:
                connection.drain_events(timeout=timeout)
            except TimeoutError:
                return
            timeout = LINGER_SECONDS

    def _flush(self) -> None:
        if self._batch:
            close_old_connections()
            self._handler([body for body, _ in self._batch])
            for _, message in self._batch:
                message.ack()
            self._batch.clear()
        elif self._idle is not None:
            close_old_connections()
            self._idle()
