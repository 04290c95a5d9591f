"""Receives cancels, also while an operation runs, and answers each one.

A cancel leaves its queue before it is carried out, so an agent that dies loses it. The control plane sends it again until
the operation has ended.
"""

import logging
import queue
import threading
from contextlib import suppress
from typing import Any

import msgspec
from kombu import Consumer, Queue
from kombu.exceptions import ContentDisallowed, DecodeError

from rollout.agent.announce import Announcer
from rollout.agent.failure import MalformedCommandError
from rollout.agent.publisher import RETRY_SECONDS, Publisher, connected
from rollout.agent.runner import Runner
from rollout.agent.settings import AgentSettings
from rollout.messages import Command, cancel_queue_for, from_json

log = logging.getLogger(__name__)

#: How often the thread checks if the agent stops, seconds.
POLL_SECONDS = 1.0


class Cancels:
    """Two threads with a connection each: one marks the operation as canceled at once, one answers after the operation.

    A single thread would wait for the running operation, and not receive the cancel of that operation.
    """

    def __init__(self, runner: Runner, settings: AgentSettings) -> None:
        self._runner = runner
        self._settings = settings
        #: None ends the thread.
        self._pending: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._broker_is_away = False
        self._threads = [
            threading.Thread(target=self._listen, name="cancels", daemon=True),
            threading.Thread(target=self._answer, name="cancel-answers", daemon=True),
        ]

    def start(self) -> None:
        """Start to receive cancels."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop both threads."""
        self._stopping.set()
        self._pending.put(None)
        for thread in self._threads:
            thread.join(timeout=5)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._consume()
            except Exception as error:  # noqa: BLE001 - the thread's outermost loop: transports raise errors of their own
                if not self._broker_is_away:
                    log.warning("The broker is away, no cancel is received: %s", error)
                self._broker_is_away = True
                self._stopping.wait(RETRY_SECONDS)

    def _consume(self) -> None:
        source = Queue(cancel_queue_for(self._settings.node))
        with (
            connected(self._settings) as connection,
            Consumer(connection.channel(), [source], accept=["json"], on_message=self._receive, no_ack=True),
        ):
            self._broker_is_away = False
            while not self._stopping.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=POLL_SECONDS)

    def _receive(self, message: Any) -> None:
        try:
            command = from_json(Command, message.decode())
            if self._runner.give_up(command):
                self._pending.put(command)
        except (ContentDisallowed, DecodeError, msgspec.ValidationError, MalformedCommandError) as error:
            log.error("Dropped a cancel: %s", error)  # noqa: TRY400 - the traceback says nothing more

    def _answer(self) -> None:
        publisher = Publisher(self._settings)
        while command := self._pending.get():
            try:
                self._runner.cancel(command, report=Announcer(publisher))
            except Exception:  # the thread's outermost loop: the next cancel must still be answered
                log.exception("The cancel of %s could not be answered", command.rollout)
        publisher.close()
