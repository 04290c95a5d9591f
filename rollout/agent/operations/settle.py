"""Watches the server after a load: a module may crash it, block it, or make a replica lose writes some seconds later."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from rollout.agent.failure import AgentError, Failure
from rollout.agent.operations.full_syncs import refuse_loop
from rollout.agent.operations.operation import Operation
from rollout.agent.server.health import Sample, fault, lost_link, more_failed_calls
from rollout.agent.server.session import (
    LoadedModule,
    RefusedError,
    Server,
    ServerLoadingError,
    ServerSilentError,
    Session,
    UserRefusedError,
)
from rollout.messages import FailedCalls, Reason

#: Seconds between two samples.
SAMPLE_SECONDS = 1.0
#: Seconds between two attempts to reach a server that does not answer.
POLL_SECONDS = 0.05
#: A server that cannot be reached for so long has crashed, whatever its log says, seconds.
DOWN_SECONDS = 30.0
#: A server that has not answered for so long is reported, seconds.
HANG_SECONDS = 10.0


class RestartedError(AgentError):
    """The server was restarted, or a connection broke, and nothing says that the server crashed. It answers again."""


def settle(operation: Operation, run_id: str, module: LoadedModule) -> None:
    """Wait until the server process `run_id` has run and been ready with `module` for as long as the command says, without an
    interruption.

    Raises: `RestartedError`; `Failure` if the server has crashed, hangs or is not healthy, or if the operation is canceled
    or out of time.
    """
    end = time.monotonic() + operation.command.settle_seconds
    silence, link = _Silence(operation), _Link(operation)
    with closing(_Connection(operation.node.server)) as connection:
        while True:
            left = end - time.monotonic()
            wait = SAMPLE_SECONDS
            try:
                is_ready = _is_ready(operation, connection.session(), run_id, link)
                _keep_for_aof(operation, connection.session(), module)
                if silence.end() or not is_ready:
                    end = time.monotonic() + operation.command.settle_seconds
                elif left <= 0:
                    _look_after(operation, connection.session())
                    break
                else:
                    wait = min(left, SAMPLE_SECONDS)
            except (RefusedError, ServerLoadingError, UserRefusedError):
                connection.close()
                if silence.end():
                    end = time.monotonic() + operation.command.settle_seconds
            except ServerSilentError as error:
                connection.close()
                silence.add(error)
                wait = POLL_SECONDS
            except Failure as failure:
                connection.close()
                if failure.reason is not Reason.SERVER_UNREACHABLE:
                    raise
                if is_restarted(operation, run_id, failure):
                    raise RestartedError from failure
            operation.pause(wait)
            try:
                silence.check_deadline()
            except Failure as failure:
                if failure.reason is Reason.NODE_DEADLINE and link.lost:
                    raise Failure(Reason.LINK_DOWN, link.lost) from failure
                raise
    _compare_calls(operation)


def _is_ready(operation: Operation, session: Session, run_id: str, link: "_Link") -> bool:
    """Take a sample, and return True if the server is ready. Raises: `RestartedError`, `Failure`."""
    watch = operation.watch
    if watch.before is None and watch.last is None:  # else it was marked before the load
        operation.server_log.mark(session)
    session.ping()
    now = watch.look(session)
    if now.run_id != run_id and is_restarted(operation, run_id):
        raise RestartedError
    if watch.baseline and (found := fault(watch.baseline, now)):
        _look_after(operation, session)
        raise Failure(found.reason, found.message)
    refuse_loop(operation, session)
    link.look(watch.baseline or now, now)
    return now.is_ready_as(watch.baseline or now)


def leaves_writes_in_aof(session: Session, module_name: str) -> bool:
    """Return True if a start may read the module's commands from the AOF, or if the server does not say."""
    try:
        return session.writes_aof() and bool(session.write_commands_of(module_name))
    except RefusedError:
        return True


def _keep_for_aof(operation: Operation, session: Session, module: LoadedModule) -> None:
    """Write the module's line if the AOF was switched on after the load: from then on, a start may need the module."""
    writes_aof = operation.watch.last is not None and operation.watch.last.writes_aof
    if writes_aof and not operation.has_line(module) and leaves_writes_in_aof(session, module.name):
        operation.write_line(module)


def _look_after(operation: Operation, session: Session) -> None:
    operation.watch.look_after(session, operation.command.module_name, operation.command.commands)


def _compare_calls(operation: Operation) -> None:
    """Compare the calls of the module's commands with those before. Raises: `Failure` (failed_calls) if that is a stop."""
    watch = operation.watch
    if watch.after is None:
        return
    if watch.after.calls == 0:
        watch.remarks.append("No client called its commands while it settled.")
    if watch.before and (words := more_failed_calls(watch.before, watch.after)):
        if operation.command.failed_calls is FailedCalls.STOP:
            raise Failure(Reason.FAILED_CALLS, words)
        watch.remarks.append(words)


def is_restarted(operation: Operation, run_id: str, failure: Failure | None = None) -> bool:
    """Wait until the server answers. Return True if it was restarted, False if it is still the process `run_id`.

    `failure`: how the server was found not to answer.

    Raises: `Failure` (server_crashed) if the server's log or its unit says so, if it stays down, or if it was restarted
    twice within a minute. Without a sign of a crash, a person has restarted it.
    """
    down_at = time.monotonic() + DOWN_SECONDS
    silence = _Silence(operation)
    if isinstance(failure, ServerSilentError):
        silence.add(failure)
    while True:
        is_up = False
        try:
            with operation.node.server.session() as session:
                info = session.info("server", "persistence")
            if info.get("run_id") == run_id:
                return False
            is_up = info.get("loading") != "1"
            silence.end()
        except ServerSilentError as error:
            down_at = time.monotonic() + DOWN_SECONDS
            silence.add(error)
        except (RefusedError, ServerLoadingError, UserRefusedError):
            down_at = time.monotonic() + DOWN_SECONDS
            silence.end()
        except Failure as down:
            if down.reason is not Reason.SERVER_UNREACHABLE:
                raise
            silence.end()
            if time.monotonic() > down_at:
                raise crashed(operation, f"It was not running again after {DOWN_SECONDS:g} s.") from down
        if sign := operation.server_log.sign_of_crash():
            raise crashed(operation, sign)
        if is_up:
            break
        operation.pause(POLL_SECONDS)
        silence.check_deadline()
    if operation.watch.note_restart():
        raise crashed(operation, "It was restarted twice within a minute.")
    words = "The server was restarted during the operation, and nothing says that it crashed. It settles again."
    operation.note(Reason.SERVER_RESTARTED, words)
    operation.watch.remarks = [words]
    return True


@contextmanager
def noted_hang(operation: Operation) -> Iterator[None]:
    """Report that the server does not answer if the block takes longer than `HANG_SECONDS`."""
    timer = threading.Timer(HANG_SECONDS, _note_hang, [operation])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # no report follows the final one


def crashed(operation: Operation, words: str = "") -> Failure:
    name = f"{operation.command.module_name} {operation.command.version}"
    message = f"The server stopped during the operation on {name}. {words}".rstrip()
    return Failure(Reason.SERVER_CRASHED, f"{message} See its log.")


def silent(operation: Operation, error: ServerSilentError) -> Failure:
    """Return the failure of an operation whose time ended while the server did not answer."""
    name = f"{operation.command.module_name} {operation.command.version}"
    words = f"The server is still busy with {name}: {error.message}"
    if error.seconds < HANG_SECONDS:
        return Failure(Reason.NODE_DEADLINE, words)
    return Failure(Reason.SERVER_HANGS, f"{words} If it hangs, only SIGKILL ends it.")


def _note_hang(operation: Operation) -> None:
    words = f"The server has not answered for {HANG_SECONDS:g} s. If it hangs, only SIGKILL ends it."
    operation.note(Reason.SERVER_HANGS, words)


class _Connection:
    """One connection that is opened again after it broke."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stack = ExitStack()
        self._session: Session | None = None

    def session(self) -> Session:
        """Raises: `Failure`, as `Server.session` does."""
        if self._session is None:
            self._session = self._stack.enter_context(self._server.session(HANG_SECONDS / 2))
        return self._session

    def close(self) -> None:
        self._session = None
        self._stack.close()


class _Link:
    """The link of a replica to its master. `lost`: for how long it is down, as a sentence. It is reported once."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self.lost = ""
        self._is_noted = False

    def look(self, before: Sample, now: Sample) -> None:
        self.lost = lost_link(before, now)
        if self.lost and not self._is_noted:
            self._is_noted = True
            self._operation.note(Reason.LINK_DOWN, f"{self.lost} The server settles again when it is up.")


class _Silence:
    """For how long the server has not answered. It is reported once."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._since: float | None = None
        self._is_noted = False

    def add(self, error: ServerSilentError) -> None:
        if self._since is None:
            self._since = time.monotonic() - error.seconds
        if self._seconds() >= HANG_SECONDS and not self._is_noted:
            self._is_noted = True
            _note_hang(self._operation)

    def end(self) -> bool:
        """Note that the server answers. Return True if it has not for so long that it was reported."""
        seconds, self._since = self._seconds(), None
        if seconds < HANG_SECONDS:
            return False
        words = f"The server did not answer for {seconds:.0f} s during the operation. It has settled again since."
        self._operation.watch.remarks.append(words)
        return True

    def check_deadline(self) -> None:
        """Raises: `Failure` if the operation is canceled or out of time."""
        try:
            self._operation.deadline.remaining()
        except Failure as failure:
            if failure.reason is Reason.NODE_DEADLINE and self._seconds() >= HANG_SECONDS:
                raise silent(self._operation, ServerSilentError("PING", self._seconds())) from failure
            raise

    def _seconds(self) -> float:
        return 0.0 if self._since is None else time.monotonic() - self._since
