"""Receives cancels and requests for a new key, also while an operation runs, and answers each one.

A cancel leaves its queue before it is carried out, so an agent that dies loses it. The control plane sends it again until
the operation has ended.
"""

import logging
import queue
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from kombu import Consumer, Queue
from kombu.exceptions import ContentDisallowed, DecodeError

from rollout.agent.control_plane.publisher import RETRY_SECONDS, Publisher, broker_problem, connected
from rollout.agent.control_plane.rotation import rotate
from rollout.agent.control_plane.trust import Trust
from rollout.agent.failure import MalformedCommandError
from rollout.agent.operations.announce import Announcer
from rollout.agent.operations.runner import Runner
from rollout.messages import Command, cancel_queue_for, from_json
from rollout.signing import Purpose, UntrustedError

log = logging.getLogger(__name__)

#: How often the thread checks if the agent stops, seconds.
POLL_SECONDS = 1.0
#: How often the agent asks for the control plane's keys, seconds. A node that gets no command must learn a new key too, and
#: must not believe a key that was removed.
LEARN_AGAIN_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Rekey:
    """A request to replace the key with this id."""

    replaces: str


class Cancels:
    """Two threads with a connection each: one marks the operation as canceled at once, one answers after the operation.

    A single thread would wait for the running operation, and not receive the cancel of that operation.
    """

    def __init__(self, runner: Runner, trust: Trust, *, rotated: Callable[[], None] = lambda: None) -> None:
        self._runner = runner
        self._trust = trust
        self._rotated = rotated
        #: None ends the thread.
        self._pending: queue.SimpleQueue[Command | Rekey | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._broker_is_away = False
        self._patience = random.uniform(0, LEARN_AGAIN_SECONDS)  # noqa: S311 - no secret
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
                    log.warning("%s No cancel is received.", broker_problem(error))
                self._broker_is_away = True
                self._stopping.wait(RETRY_SECONDS)

    def _consume(self) -> None:
        source = Queue(cancel_queue_for(self._trust.settings.node))
        with (
            connected(self._trust) as connection,
            Consumer(connection.channel(), [source], accept=["json"], on_message=self._receive, no_ack=True),
        ):
            self._broker_is_away = False
            while not self._stopping.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=POLL_SECONDS)

    def _receive(self, message: Any) -> None:
        try:
            body, purpose = message.decode(), Purpose.CANCEL
            if self._trust.identity is not None:
                purpose, body = self._trust.opened(body, Purpose.CANCEL, Purpose.REKEY)
            if purpose == Purpose.REKEY:
                self._pending.put(Rekey(replaces=str(body["replaces"])))
                return
            command = from_json(Command, body)
            if self._runner.give_up(command):
                self._pending.put(command)
        except (
            ContentDisallowed,
            DecodeError,
            msgspec.ValidationError,
            MalformedCommandError,
            UntrustedError,
        ) as error:
            log.error("Dropped a cancel: %s", error)  # noqa: TRY400 - the traceback says nothing more

    def _answer(self) -> None:
        publisher = Publisher(self._trust)
        while pending := self._next():
            try:
                if isinstance(pending, Command):
                    self._runner.cancel(pending, report=Announcer(publisher))
                elif rotate(self._trust, replaces=pending.replaces):
                    self._rotated()
            except Exception:  # the thread's outermost loop: the next cancel must still be answered
                log.exception("%s could not be answered", pending)
        publisher.close()

    def _next(self) -> Command | Rekey | None:
        """Return what to answer next. Learn the control plane's keys now and then, at a random moment at first."""
        while True:
            try:
                return self._pending.get(timeout=self._patience)
            except queue.Empty:
                self._patience = LEARN_AGAIN_SECONDS
                try:
                    self._trust.learn_keys()
                except Exception:  # likewise
                    log.exception("The keys of the control plane could not be learned")
