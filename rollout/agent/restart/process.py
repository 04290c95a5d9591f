"""Ends the server's process, and waits for the next one."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from rollout.agent.failure import AgentError, Failure
from rollout.agent.restart.hooks import CommandFailedError, run_command
from rollout.agent.server.session import RefusedError, Server, ServerSilentError, Session
from rollout.agent.settings import AgentSettings, RestartWay

#: The longest time for SHUTDOWN, which saves the data first, seconds.
SHUTDOWN_SECONDS = 3600.0
#: A server that makes no progress for so long, while it starts or loads its data, has failed, seconds.
STALL_SECONDS = 120.0
POLL_SECONDS = 0.1
#: The parameter that says if SIGTERM saves.
ON_SIGTERM = "shutdown-on-sigterm"
TELL_SECONDS = 10.0
#: A server that was started so often, and has not loaded its data yet, cannot be started.
MOST_STARTS = 3


class RestartFailedError(AgentError):
    """The server was not ended, or does not start. The message says what is known."""


class SlowLoadError(RestartFailedError):
    """The server runs and reads its data, but makes no progress. Another restart would read it from the beginning."""


def end(
    server: Server,
    settings: AgentSettings,
    way: RestartWay,
    unit: str,
    environ: Mapping[str, str],
    *,
    saves: bool,
    ended: Callable[[], object] = lambda: None,
) -> None:
    """End the server's process, and do what starts the next one, if nothing else does. `environ`: of a command. `ended` is called
    as soon as the process is known to have ended.

    Raises: `RestartFailedError` if the server refuses, `Failure` if it cannot be reached.
    """
    former = ""
    try:
        with server.session(SHUTDOWN_SECONDS) as session:
            if way == "command":
                # The command ends it by SIGTERM. By default, a server without save points then saves nothing.
                former = str((session.call("CONFIG", "GET", ON_SIGTERM) or ["", ""])[1])
                session.call("CONFIG", "SET", ON_SIGTERM, "save" if saves else "nosave")
            else:
                session.shutdown(saves=saves)
    except RefusedError as error:
        raise RestartFailedError(f"The server refuses to end: {str(error).rstrip('.')}.") from error
    if way == "command":
        try:
            start(settings, way, unit, environ)
        except RestartFailedError:
            with suppress(Failure, RefusedError), server.session() as session:  # it may run on
                session.call("CONFIG", "SET", ON_SIGTERM, former)
            raise
        ended()
    else:
        ended()
        start(settings, way, unit, environ)


def start(settings: AgentSettings, way: RestartWay, unit: str, environ: Mapping[str, str]) -> None:
    """Start the server if nothing else does. Raises: `RestartFailedError`."""
    try:
        if way == "systemd":
            run_command(["systemctl", "start", "--", unit], {})
        elif way == "command" and settings.restart_command:
            run_command(settings.restart_command, environ)
    except CommandFailedError as error:
        raise RestartFailedError(str(error)) from error


def wait_for_start(
    server: Server,
    run_id: str,
    has_failed: Callable[[], bool],
    tell: Callable[[str], None],
    *,
    stall: float = STALL_SECONDS,
) -> Mapping[str, str]:
    """Wait until another process than `run_id` has loaded its data. Return the sections `server` and `persistence` of INFO.

    No time is too long while `loading_loaded_bytes` grows. `has_failed`: the server's log says that a start has failed. `tell`
    gets a sentence about the progress every `TELL_SECONDS`.
    Raises: `RestartFailedError`.
    """
    progress, starts = "", set[str]()
    moved = noted = time.monotonic()
    while True:
        seen = ""
        info: Mapping[str, str] = {}
        try:
            with server.session() as session:
                info = _state(session)
        except ServerSilentError:
            seen = progress  # it is busy
        except (Failure, RefusedError):
            seen = "down"
        if info and info.get("run_id") != run_id:
            if info.get("loading") == "0":
                return info
            seen = f"{info.get('run_id')} {info.get('loading_loaded_bytes')}"
            starts.add(info.get("run_id", ""))
            if time.monotonic() - noted > TELL_SECONDS:
                noted = time.monotonic()
                tell(f"The server reads its data: {info.get('loading_loaded_perc', '?')} %.")
        elif info:
            seen = run_id
        if seen != progress:
            progress, moved = seen, time.monotonic()
        if len(starts) > MOST_STARTS:
            raise RestartFailedError(f"It was started {len(starts)} times, and ended each time while it read its data.")
        if seen == "down" and has_failed():
            raise RestartFailedError("Its log says that the start has failed.")
        if time.monotonic() - moved > stall:
            raise _stalled(seen, run_id, stall)
        time.sleep(POLL_SECONDS)


def _state(session: Session) -> Mapping[str, str]:
    return session.info("server", "persistence")


def _stalled(seen: str, run_id: str, seconds: float) -> RestartFailedError:
    if seen in {"down", ""}:
        return RestartFailedError(f"It was not running again after {seconds:g} s.")
    if seen == run_id:
        return RestartFailedError(f"It has not ended within {seconds:g} s.")
    return SlowLoadError(f"It has read no more of its data for {seconds:g} s. It still runs.")
