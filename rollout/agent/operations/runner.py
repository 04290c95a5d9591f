"""Carries out commands on one node, without a broker. The Celery task, tests and benchmarks call it."""

import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from rollout.agent.control_plane.trust import Trust
from rollout.agent.deadline import LONGEST_OPERATION, Deadline
from rollout.agent.failure import CanceledError, Failure, MalformedCommandError, MustWaitError, SkippedError, as_failure
from rollout.agent.node.examinations import Examinations
from rollout.agent.node.journal import Before, Entry
from rollout.agent.node.node import Node
from rollout.agent.node.start_checks import StartChecks
from rollout.agent.operations.adopt import adopt
from rollout.agent.operations.expiry import Expiry
from rollout.agent.operations.failback import fail_back
from rollout.agent.operations.install import install
from rollout.agent.operations.last_check import refuse_to_change
from rollout.agent.operations.operation import Operation, Outcome
from rollout.agent.operations.remove import remove
from rollout.agent.operations.watch import Watch
from rollout.agent.server.causes import refusal
from rollout.agent.server.facts import ServerFacts
from rollout.agent.server.server_log import ServerLog, redacted
from rollout.agent.server.session import RefusedError
from rollout.agent.settings import AgentSettings
from rollout.messages import Action, Activation, Command, Heartbeat, Inventory, Phase, Reason, Report, Restart

log = logging.getLogger(__name__)

Send = Callable[[Report], None]
#: Rollout, module name, generation, attempt.
_Identity = tuple[str, str, int, int]

#: Reasons whose cause only the server's log tells.
_TOLD_BY_LOG = frozenset({Reason.LOAD_FAILED, Reason.UNLOAD_REFUSED, Reason.SERVER_CRASHED, Reason.RESTART_FAILED})

_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,128}")


class Runner:
    """Carries out commands on the node of these settings, one at a time. Heartbeats may be read at any time."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        expiry: Expiry | None = None,
        trust: Trust | None = None,
        examinations: Examinations | None = None,
        start_checks: StartChecks | None = None,
    ) -> None:
        self.node = Node(settings, trust, examinations, start_checks)
        self._expiry = expiry or Expiry()
        self._is_recovered = False
        #: Canceled commands without an answer. Threads share it without a lock: each access is one atomic step.
        self._given_up: set[_Identity] = set()
        self._cancels = threading.Condition()

    def recover(self) -> None:
        """Clean up after a crash, and create the include file. Call this once at the start.

        Raises: `OSError`. Then each command tries it again, and fails if it still does not work.
        """
        with self.node.journal.lock():
            self._recover()

    def _recover(self) -> None:
        self.node.maintenance.settle_failover()  # first: clients wait
        self.node.journal.sweep()
        self.node.persistence.ensure()
        for module in [each for each in self.node.module_store.root.iterdir() if each.is_dir()]:
            self.node.recover(module.name, unfinished=self._may_be_unfinished(module.name))
        self._is_recovered = True

    def execute(self, command: Command, *, report: Send) -> Report | None:
        """Carry out the command. Return the last report; None if the command has expired and nothing was done.

        `report` is called with a report of each phase, the last one last, and must not raise. A repeated command gets the
        same last report again. Any failure on the node becomes a report. If the server must not be changed now, the node
        is as it was before, the phase is `scheduled`, and a command with a larger `release` is carried out again.
        Raises: `MalformedCommandError`.
        """
        _check(command, self.node.settings.node)
        try:
            if self._has_expired(command):
                return None
            _refuse_to_change(self.node)
            with self.node.journal.lock():
                if not self._is_recovered:
                    self._recover()
                self.node.repair_configuration()
                final = self._answer(command, report)
            self.node.check_start()
        except Exception as error:  # noqa: BLE001 - the outermost loop of a command: it must end in a report
            final = self._final(command, _ended_by(error, command))
        report(final)
        return final

    def give_up(self, command: Command) -> bool:
        """Give up the operation of `command` at its next step. Return True if `cancel` must be called.

        Returns False if the command has expired, or was given up before and `cancel` has not returned yet. Never waits.
        Raises: `MalformedCommandError`.
        """
        _check(command, self.node.settings.node)
        with suppress(Failure):  # `cancel` reports it
            if self._has_expired(command):
                return False
        if _identity(command) in self._given_up:
            return False
        self._given_up.add(_identity(command))
        with self._cancels:
            self._cancels.notify_all()
        return True

    def cancel(self, command: Command, *, report: Send) -> Report | None:
        """Cancel the command. Return the final report, as `execute` does: `canceled` if it was not started, or was undone.

        Waits for the running operation. A finished operation is answered with its report; an operation that a crashed
        agent had committed is finished. Raises: `MalformedCommandError`.
        """
        self._given_up.add(_identity(command))
        try:
            return self.execute(command, report=report)
        finally:
            self._given_up.discard(_identity(command))

    def heartbeat(self, *, hello: bool) -> Heartbeat:
        """Return the heartbeat to send now."""
        return self.node.heartbeat(hello=hello)

    def _has_expired(self, command: Command) -> bool:
        if command.incarnation not in {"", self.node.incarnation}:
            log.info(
                "Dropped %s of %s: it was sent to another start of this agent", command.rollout, command.module_name
            )
            return True
        if self._expiry.has_expired(command):
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

    def _answer(self, command: Command, report: Send) -> Report:
        try:
            entry = self.node.journal.entry(command.module_name)
        except Failure as failure:
            return self._final(command, _failed(failure))
        if entry and entry.report and _is_repeated(entry, command) and not self._is_released_again(entry, command):
            return _answer_again(entry.report, command)
        if entry and _is_stale(entry, command):
            return self._final(command, _failed(_stale(entry, command)))
        return self._run_and_journal(command, entry, report)

    def _is_released_again(self, entry: Entry, command: Command) -> bool:
        """Return True if the operation was returned, and may be carried out now; or is canceled, so that it never is."""
        if entry.report is None or entry.report.phase is not Phase.SCHEDULED:
            return False
        return command.release > entry.release or _identity(command) in self._given_up

    def _run_and_journal(self, command: Command, entry: Entry | None, report: Send) -> Report:
        started = time.monotonic()
        try:
            outcome, entry = self._begin_and_run(command, entry, report)
        except OSError as error:
            # Nothing was started: without a journal there is no operation.
            return self._final(command, _failed(as_failure(error)), seconds=time.monotonic() - started)
        final = self._final(command, outcome, seconds=time.monotonic() - started)
        try:
            self.node.journal.finish(entry, final)
        except OSError:
            log.exception(
                "The report of %s could not be journaled: a repeated command is carried out again", command.rollout
            )
        return final

    def _begin_and_run(self, command: Command, entry: Entry | None, report: Send) -> tuple[Outcome, Entry]:
        unfinished = entry if entry and entry.report is None else None
        resumed = unfinished if unfinished and unfinished.generation == command.generation else None
        self.node.recover(command.module_name, unfinished=resumed is not None)
        facts, unreachable = self._facts()
        before = self._before(command, unfinished, facts)
        begun = self.node.journal.begin(command, before, committed=resumed is not None and resumed.committed)

        reported: Phase | None = None

        def is_given_up() -> bool:
            return not begun.committed and _identity(command) in self._given_up

        def commit() -> None:
            nonlocal begun
            begun = self.node.journal.commit(command.module_name, begun)

        def report_phase(phase: Phase) -> None:
            nonlocal reported
            deadline.remaining()
            reported = phase
            report(_report(command, Outcome(phase=phase)))

        def note(reason: Reason, message: str) -> None:
            if reported is not None:
                report(_report(command, Outcome(phase=reported, reason=reason, message=message)))

        def pause(seconds: float) -> None:
            with self._cancels:
                self._cancels.wait_for(is_given_up, seconds)

        if is_given_up():
            # An operation of a crashed agent is undone even while the server is away: at least its files.
            if unfinished is None:
                return _failed(CanceledError()), begun
        elif unreachable and _needs_server(command) and not (resumed and self.node.maintenance.held.of(command)):
            return _failed((None if resumed else self._must_wait(command)) or unreachable), begun
        deadline = Deadline(min(command.deadline_seconds, LONGEST_OPERATION), is_given_up=is_given_up)
        operation = Operation(
            node=self.node,
            command=command,
            before=before,
            facts=facts,
            resumed=resumed is not None,
            deadline=deadline,
            server_log=ServerLog(self.node.settings),
            watch=Watch(seconds=command.settle_seconds, outcomes=self.node.outcomes),
            report=report_phase,
            note=note,
            commit=commit,
            pause=pause,
        )
        try:
            outcome = _with_health(operation, _with_server_log(operation, _run(operation)))
        finally:
            operation.server_log.close()
        if outcome.phase is Phase.SUCCEEDED and operation.watch.repaired_start:
            self.node.note_start(operation.watch.repaired_start)
        return outcome, begun

    def _facts(self) -> tuple[ServerFacts | None, Failure | None]:
        try:
            return self.node.facts(), None
        except Failure as failure:
            return None, failure

    def _must_wait(self, command: Command) -> MustWaitError | None:
        """Return why a server that answers few commands must not be changed now: it may read its data."""
        try:
            with self.node.server.session() as session:
                refuse_to_change(self.node, command, session)
        except MustWaitError as wait:
            return wait
        except (Failure, RefusedError):
            return None
        return None

    def _before(self, command: Command, unfinished: Entry | None, facts: ServerFacts | None) -> Before:
        """Return the state that a failure restores. After a crash, it is the state before the crashed attempt."""
        if unfinished and unfinished.generation == command.generation:
            return unfinished.before
        store = self.node.module_store
        modules = facts.modules if facts else ()
        loaded = [each for each in modules if each.name == command.module_name and store.is_ours(each.path)]
        former = unfinished.before.loaded if unfinished else None
        return Before(
            content_sha256=self.node.digests.content(store.path(command.module_name, command.version)),
            loaded=loaded[0] if loaded else former,
            commands=self.node.commands_of(command.module_name) if loaded else (),
            options=self.node.options_of(command.module_name) if loaded else None,
        )

    def _final(self, command: Command, outcome: Outcome, *, seconds: float = 0.0) -> Report:
        return replace(_report(command, outcome), seconds=seconds, inventory=self._inventory())

    def _inventory(self) -> Inventory | None:
        """Return None if it cannot be read: the report is sent without it, and the next heartbeat has it."""
        try:
            return self.node.inventory()
        except Exception:
            log.exception("The inventory cannot be read")
            return None


def _run(operation: Operation) -> Outcome:
    """Run the operation. Return how it ended, whatever happened."""
    try:
        if operation.command.fails_back_to:
            return fail_back(operation)
        if operation.command.action is Action.INSTALL and operation.command.package:
            if operation.command.adopt:
                return adopt(operation, operation.command.package)
            return install(operation, operation.command.package)
        return remove(operation)
    except Exception as error:  # noqa: BLE001 - the outermost loop of an operation: its end must be journaled
        return _ended_by(error, operation.command)


def _with_server_log(operation: Operation, outcome: Outcome) -> Outcome:
    """Add to a failed outcome what the server logged, or why its log cannot be read."""
    if outcome.phase is not Phase.FAILED:
        return outcome
    command, log = operation.command, operation.server_log
    names = {command.module_name, *command.commands, *operation.before.commands}
    lines = tuple(redacted(each, names) for each in log.lines())
    message = outcome.message
    if log.problem and outcome.reason in _TOLD_BY_LOG:
        message += (
            f" The agent cannot read the server's log ({log.problem}). Set MODFLEET_SERVER_LOG or MODFLEET_SERVER_UNIT for "
            "the agent, and let its user read the log."
        )
    return replace(outcome, message=message, server_log=lines)


def _with_health(operation: Operation, outcome: Outcome) -> Outcome:
    """Add how the server was before the load and after it, and to a success what was noticed."""
    watch = operation.watch
    is_success = outcome.phase is Phase.SUCCEEDED
    message, restart = outcome.message, outcome.restart
    if is_success:
        message = " ".join(filter(None, (message, *watch.remarks)))
    elif moved := watch.failover:
        message = f"{message} The master was {moved.former} and is {moved.new}."
        restart = Restart(failover=moved)
    return replace(outcome, message=message, restart=restart, health=watch.health())


def _ended_by(error: Exception, command: Command) -> Outcome:
    if isinstance(error, RefusedError):
        return _failed(refusal(error))
    if isinstance(error, (Failure, OSError)):
        return _failed(as_failure(error))
    log.error("%s of %s failed", command.action, command.module_name, exc_info=error)
    return Outcome(phase=Phase.FAILED, reason=Reason.AGENT_ERROR, message=f"The agent failed: {error!r}. See its log.")


def _refuse_to_change(node: Node) -> None:
    """Raises: `Failure` (observe_only) if the agent may change nothing."""
    if node.settings.observe:
        raise Failure(Reason.OBSERVE_ONLY, "This agent only observes. Run `modfleet agent install --add load` there.")


def _check(command: Command, node: str) -> None:
    if command.node != node:
        raise MalformedCommandError(f"the command is for node {command.node}, this is node {node}")
    if not _NAME.fullmatch(command.module_name):
        raise MalformedCommandError(f"{command.module_name!r} is not a module name")
    if command.version < 0:
        raise MalformedCommandError(f"{command.version} is not a version")
    if (command.package is None) is (command.action is Action.INSTALL and not command.fails_back_to):
        raise MalformedCommandError("an install needs a package, and only an install has one")


def _identity(command: Command) -> _Identity:
    return command.rollout, command.module_name, command.generation, command.attempt


def _is_repeated(entry: Entry, command: Command) -> bool:
    return (entry.rollout, *entry.order) == (command.rollout, command.generation, command.attempt)


def _answer_again(report: Report, command: Command) -> Report:
    """Return the journaled report. The end of an operation answers each release, also one that the agent sees for the first
    time."""
    return replace(report, release=max(report.release, command.release)) if report.phase.is_final else report


def _is_stale(entry: Entry, command: Command) -> bool:
    """Return True if the journal has a newer entry, or another rollout's operation with the same numbers."""
    order = (command.generation, command.attempt)
    return order < entry.order or (order == entry.order and entry.rollout != command.rollout)


def _stale(entry: Entry, command: Command) -> Failure:
    return Failure(
        Reason.STALE_GENERATION,
        f"Generation {command.generation}, attempt {command.attempt} of {command.module_name} is older than "
        f"{entry.generation}, {entry.attempt}, which this node has already carried out.",
    )


def _needs_server(command: Command) -> bool:
    return command.action is Action.REMOVE or command.activation is Activation.LOAD or command.undoes is not None


def _failed(failure: Failure) -> Outcome:
    phase = Phase.FAILED
    if isinstance(failure, CanceledError):
        phase = Phase.CANCELED
    elif isinstance(failure, MustWaitError):
        phase = Phase.SCHEDULED
    elif isinstance(failure, SkippedError):
        phase = Phase.SKIPPED
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
        # File names may contain bytes that are not text. Neither the journal nor the broker takes them.
        message=outcome.message.encode(errors="backslashreplace").decode(),
        swap_seconds=outcome.swap_seconds,
        server_log=outcome.server_log,
        release=command.release,
        health=outcome.health,
        scratch=outcome.scratch,
        restart=outcome.restart,
        way_back=outcome.way_back,
    )
