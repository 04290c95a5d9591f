"""Hears what is to be given up, also while an operation runs, and answers each time.

A cancel is taken off its queue before it is heeded, so an agent that dies loses it: the control plane asks again until
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

#: Seconds between two looks at whether the agent stops.
LOOK_SECONDS = 1.0


class Cancels:
    """Two threads, each with a connection of its own: one marks at once, one answers when nothing is worked on.

    One alone would wait for the operation that runs, deaf to a cancel of that very operation.
    """

    def __init__(self, runner: Runner, settings: AgentSettings) -> None:
        self._runner = runner
        self._settings = settings
        #: None: the end.
        self._heard: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._is_away = False
        self._threads = [
            threading.Thread(target=self._listen, name="cancels", daemon=True),
            threading.Thread(target=self._answer, name="cancel-answers", daemon=True),
        ]

    def start(self) -> None:
        """From now on cancels are heeded."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No cancel is heeded any more."""
        self._stopping.set()
        self._heard.put(None)
        for thread in self._threads:
            thread.join(timeout=5)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._consume()
            except Exception as error:  # noqa: BLE001 - the thread's outermost loop: transports raise errors of their own
                if not self._is_away:
                    log.warning("The broker is away, no cancel is heard: %s", error)
                self._is_away = True
                self._stopping.wait(RETRY_SECONDS)

    def _consume(self) -> None:
        source = Queue(cancel_queue_for(self._settings.node))
        with (
            connected(self._settings) as connection,
            Consumer(connection.channel(), [source], accept=["json"], on_message=self._hear, no_ack=True),
        ):
            self._is_away = False
            while not self._stopping.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=LOOK_SECONDS)

    def _hear(self, message: Any) -> None:
        try:
            command = from_json(Command, message.decode())
            if self._runner.give_up(command):
                self._heard.put(command)
        except (ContentDisallowed, DecodeError, msgspec.ValidationError, MalformedCommandError) as error:
            log.error("Dropped a cancel: %s", error)  # noqa: TRY400 - the traceback says nothing more

    def _answer(self) -> None:
        publisher = Publisher(self._settings)
        while command := self._heard.get():
            try:
                self._runner.cancel(command, report=Announcer(publisher))
            except Exception:  # the thread's outermost loop: the next cancel is to be answered all the same
                log.exception("The cancel of %s could not be answered", command.rollout)
        publisher.close()
