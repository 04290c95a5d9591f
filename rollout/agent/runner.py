"""Carries out commands on one node, without a broker: the core that the Celery task, a simulator or a benchmark calls."""

import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from rollout.agent.clock import Clock
from rollout.agent.deadline import LONGEST_OPERATION, Deadline
from rollout.agent.failure import CanceledError, Failure, MalformedCommandError, as_failure
from rollout.agent.install import install
from rollout.agent.journal import Before, Entry
from rollout.agent.node import Node, ServerFacts
from rollout.agent.operation import Operation, Outcome
from rollout.agent.remove import remove
from rollout.agent.settings import AgentSettings
from rollout.messages import Action, Activation, Command, Heartbeat, Inventory, Phase, Reason, Report

log = logging.getLogger(__name__)

Say = Callable[[Report], None]
#: Rollout, module name, generation, attempt.
_Identity = tuple[str, str, int, int]

_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,128}")


class Runner:
    """The node that `settings` describe, ready for commands. One operation runs at a time; heartbeats at any time."""

    def __init__(self, settings: AgentSettings, *, clock: Clock | None = None) -> None:
        self.node = Node(settings)
        self._clock = clock or Clock()
        self._is_swept = False
        #: To be given up, and not yet answered. Threads share it without a lock: each touches it by one operation.
        self._given_up: set[_Identity] = set()
        self._cancels = threading.Condition()

    def recover(self) -> None:
        """Call once at the start: what a crash left behind is swept, and the include file exists.

        Raises: `OSError`. Then each command tries it again, and fails for the same reason.
        """
        with self.node.journal.held():
            self._sweep()

    def _sweep(self) -> None:
        self.node.include.ensure()
        for module in [each for each in self.node.folder.root.iterdir() if each.is_dir()]:
            self.node.recover(module.name, unfinished=self._may_be_unfinished(module.name))
        self._is_swept = True

    def execute(self, command: Command, *, report: Say) -> Report | None:
        """The final report, which `report` was given last; None when the command has expired and nothing was done.

        `report` gets every change of phase and must not raise. A repeated command gets the report it got before.
        Whatever goes wrong on the node ends in a report. Raises: `MalformedCommandError`.
        """
        _check(command, self.node.settings.node)
        try:
            if self._is_over(command):
                return None
            with self.node.journal.held():
                if not self._is_swept:
                    self._sweep()
                final = self._answer(command, report)
        except Exception as error:  # noqa: BLE001 - the outermost loop of a command: it must end in a report
            final = self._final(command, _ended_by(error, command))
        report(final)
        return final

    def give_up(self, command: Command) -> bool:
        """Whether `cancel` is to be called: the work on `command` is given up at its next step from now on.

        False when it has expired, or was given up already and `cancel` has not yet returned. Never waits.
        Raises: `MalformedCommandError`.
        """
        _check(command, self.node.settings.node)
        with suppress(Failure):  # `cancel` reports it
            if self._is_over(command):
                return False
        if _identity(command) in self._given_up:
            return False
        self._given_up.add(_identity(command))
        with self._cancels:
            self._cancels.notify_all()
        return True

    def cancel(self, command: Command, *, report: Say) -> Report | None:
        """The final report, as of `execute`: `canceled` when the command was not begun, or could be undone.

        Waits for whatever runs. What had ended is answered again; what a crashed agent had committed is finished.
        Raises: `MalformedCommandError`.
        """
        self._given_up.add(_identity(command))
        try:
            return self.execute(command, report=report)
        finally:
            self._given_up.discard(_identity(command))

    def heartbeat(self, *, hello: bool) -> Heartbeat:
        """What to tell the control plane now."""
        return self.node.heartbeat(hello=hello)

    def _is_over(self, command: Command) -> bool:
        if self._clock.is_over(command):
            log.info("Dropped %s of %s: expired", command.rollout, command.module_name)
            return True
        return False

    def _may_be_unfinished(self, module_name: str) -> bool:
        try:
            entry = self.node.journal.entry(module_name)
        except (Failure, OSError) as error:
            log.warning("%s", error)
            return True
        return entry is not None and entry.report is None

    def _answer(self, command: Command, report: Say) -> Report:
        try:
            entry = self.node.journal.entry(command.module_name)
        except Failure as failure:
            return self._final(command, _failed(failure))
        if entry and entry.report and _is_repeated(entry, command):
            return entry.report
        if entry and _is_stale(entry, command):
            return self._final(command, _failed(_stale(entry, command)))
        return self._work(command, entry, report)

    def _work(self, command: Command, entry: Entry | None, report: Say) -> Report:
        started = time.monotonic()
        try:
            outcome, entry = self._begin_and_run(command, entry, report)
        except OSError as error:
            # Nothing was begun: without a journal there is no work.
            return self._final(command, _failed(as_failure(error)), seconds=time.monotonic() - started)
        final = self._final(command, outcome, seconds=time.monotonic() - started)
        try:
            self.node.journal.finish(entry, final)
        except OSError:
            log.exception("The report of %s could not be journaled: a repeated command works again", command.rollout)
        return final

    def _begin_and_run(self, command: Command, entry: Entry | None, report: Say) -> tuple[Outcome, Entry]:
        unfinished = entry if entry and entry.report is None else None
        resumed = unfinished if unfinished and unfinished.generation == command.generation else None
        self.node.recover(command.module_name, unfinished=resumed is not None)
        facts, unreachable = self._facts()
        before = self._before(command, unfinished, facts)
        begun = self.node.journal.begin(command, before, committed=resumed is not None and resumed.committed)

        def is_given_up() -> bool:
            return not begun.committed and _identity(command) in self._given_up

        def commit() -> None:
            nonlocal begun
            begun = self.node.journal.commit(command.module_name, begun)

        def say(phase: Phase) -> None:
            deadline.remaining()
            report(_report(command, Outcome(phase=phase)))

        def pause(seconds: float) -> None:
            with self._cancels:
                self._cancels.wait_for(is_given_up, seconds)

        if is_given_up():
            # What a crashed agent had begun is undone even while the server is away: the files at least.
            if unfinished is None:
                return _failed(CanceledError()), begun
        elif unreachable and _needs_server(command):
            return _failed(unreachable), begun
        deadline = Deadline(min(command.deadline_seconds, LONGEST_OPERATION), is_given_up=is_given_up)
        operation = Operation(
            node=self.node,
            command=command,
            before=before,
            facts=facts,
            resumed=resumed is not None,
            deadline=deadline,
            say=say,
            commit=commit,
            pause=pause,
        )
        outcome = _run(operation)
        return outcome, begun

    def _facts(self) -> tuple[ServerFacts | None, Failure | None]:
        try:
            return self.node.facts(), None
        except Failure as failure:
            return None, failure

    def _before(self, command: Command, unfinished: Entry | None, facts: ServerFacts | None) -> Before:
        """What a failure goes back to; after a crash that is what the crashed attempt started from."""
        if unfinished and unfinished.generation == command.generation:
            return unfinished.before
        folder = self.node.folder
        modules = facts.modules if facts else ()
        loaded = [each for each in modules if each.name == command.module_name and folder.is_ours(each.path)]
        former = unfinished.before.loaded if unfinished else None
        return Before(
            content_sha256=self.node.digests.content(folder.path(command.module_name, command.version)),
            loaded=loaded[0] if loaded else former,
            commands=self.node.commands_of(command.module_name) if loaded else (),
        )

    def _final(self, command: Command, outcome: Outcome, *, seconds: float = 0.0) -> Report:
        return replace(_report(command, outcome), seconds=seconds, inventory=self._inventory())

    def _inventory(self) -> Inventory | None:
        """None when it cannot be read: the report is sent without it, and the next heartbeat brings it."""
        try:
            return self.node.inventory()
        except Exception:
            log.exception("The inventory cannot be read")
            return None


def _run(operation: Operation) -> Outcome:
    """How the operation ended, whatever happened."""
    try:
        if operation.command.action is Action.INSTALL and operation.command.package:
            return install(operation, operation.command.package)
        return remove(operation)
    except Exception as error:  # noqa: BLE001 - the outermost loop of an operation: what it began is journaled as ended
        return _ended_by(error, operation.command)


def _ended_by(error: Exception, command: Command) -> Outcome:
    if isinstance(error, (Failure, OSError)):
        return _failed(as_failure(error))
    log.error("%s of %s failed", command.action, command.module_name, exc_info=error)
    return Outcome(phase=Phase.FAILED, reason=Reason.AGENT_ERROR, message=f"The agent failed: {error!r}. See its log.")


def _check(command: Command, node: str) -> None:
    if command.node != node:
        raise MalformedCommandError(f"the command is for node {command.node}, this is {node}")
    if not _NAME.fullmatch(command.module_name):
        raise MalformedCommandError(f"{command.module_name!r} is no module name")
    if command.version < 0:
        raise MalformedCommandError(f"{command.version} is no version")
    if (command.package is None) is (command.action is Action.INSTALL):
        raise MalformedCommandError("an install needs a package, and only an install has one")


def _identity(command: Command) -> _Identity:
    return command.rollout, command.module_name, command.generation, command.attempt


def _is_repeated(entry: Entry, command: Command) -> bool:
    return (entry.rollout, *entry.order) == (command.rollout, command.generation, command.attempt)


def _is_stale(entry: Entry, command: Command) -> bool:
    """Whether the journal knows something newer, or another rollout's operation under the same number."""
    order = (command.generation, command.attempt)
    return order < entry.order or (order == entry.order and entry.rollout != command.rollout)


def _stale(entry: Entry, command: Command) -> Failure:
    return Failure(
        Reason.STALE_GENERATION,
        f"Generation {command.generation}, attempt {command.attempt} of {command.module_name} is older than "
        f"{entry.generation}, {entry.attempt}, which this node has already obeyed.",
    )


def _needs_server(command: Command) -> bool:
    return command.action is Action.REMOVE or command.activation is Activation.LOAD or command.undoes is not None


def _failed(failure: Failure) -> Outcome:
    phase = Phase.CANCELED if isinstance(failure, CanceledError) else Phase.FAILED
    return Outcome(phase=phase, reason=failure.reason, message=failure.message)


def _report(command: Command, outcome: Outcome) -> Report:
    return Report(
        rollout=command.rollout,
        node=command.node,
        module_name=command.module_name,
        generation=command.generation,
        attempt=command.attempt,
        phase=outcome.phase,
        reason=outcome.reason,
        # Names of files may hold what is no text; neither the journal nor the wire takes that.
        message=outcome.message.encode(errors="backslashreplace").decode(),
        swap_seconds=outcome.swap_seconds,
    )
