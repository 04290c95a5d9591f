"""The three ways to change a server's modules: load one, unload one, or replace one by another version.

Each raises `Failure` if the server refuses.
"""

import time

from rollout.agent.failure import Failure
from rollout.agent.server import LoadedModule, RefusedError, ServerLostError, ServerSilentError, Session
from rollout.messages import Reason


class UnloadRefusedError(Failure):
    """`exports_types`: the server will refuse as long as it runs."""

    def __init__(self, loaded: LoadedModule, error: RefusedError) -> None:
        super().__init__(
            Reason.UNLOAD_REFUSED,
            f"The server refuses to unload {loaded.name} {loaded.version} ({error}). A module that exports data types "
            "or is in use can only be removed by a restart of the server.",
        )
        self.exports_types = "data type" in str(error)


def load(session: Session, module: LoadedModule) -> None:
    """Load `module` into the server."""
    try:
        session.load(module.path, module.args)
    except RefusedError as error:
        raise _disabled(error) or _not_loaded(module, error) from error


def unload(session: Session, loaded: LoadedModule) -> None:
    """Unload the module from the server."""
    try:
        session.unload(loaded.name)
    except RefusedError as error:
        raise _disabled(error) or UnloadRefusedError(loaded, error) from error


def swap(session: Session, loaded: LoadedModule, to: LoadedModule, *, back: LoadedModule) -> float:
    """Replace `loaded` by `to`. Return the seconds in which the server answered no client; no call is refused.

    If the server refuses `to`, `back` is loaded at once: the same module as `loaded`, from where its files are now.
    """
    started = time.monotonic()
    try:
        unload_refused, load_refused = session.swap(loaded.name, to.path, to.args)
    except RefusedError as error:
        raise _disabled(error) or _not_loaded(to, error) from error
    seconds = time.monotonic() - started
    if unload_refused:
        # Nothing else, above all no LOAD of the module that is still loaded: its OnLoad would run in the mapped library,
        # which would lose its data type (docs/adr/0009-swaps-and-lines.md).
        raise UnloadRefusedError(loaded, unload_refused) from unload_refused
    if load_refused:
        failure = _not_loaded(to, load_refused)
        try:
            session.load(back.path, back.args)
        except (RefusedError, ServerLostError, ServerSilentError) as error:
            raise Failure(failure.reason, f"{failure.message} {_not_back(back, error)}") from error
        raise failure from load_refused
    return seconds


def _not_back(module: LoadedModule, error: Exception) -> str:
    return f"{module.name} {module.version} was not loaded again: {error}"


def _disabled(error: RefusedError) -> Failure | None:
    if "command not allowed" not in str(error):
        return None
    return Failure(
        Reason.MODULE_COMMAND_DISABLED,
        "The server does not allow MODULE LOAD. Add `enable-module-command local` to its configuration and restart it: the "
        f"setting cannot be changed at run time. The server's answer: {error}",
    )


def _not_loaded(module: LoadedModule, error: RefusedError) -> Failure:
    return Failure(
        Reason.LOAD_FAILED,
        f"The server refuses to load {module.name} {module.version}: {error} See the server's log for the cause.",
    )
