"""The three ways to change a server's modules: load one, unload one, or replace one by another version.

Each raises `Failure` if the server refuses.
"""

import time

from rollout.agent.failure import Failure
from rollout.agent.server.causes import LoadRefusedError, UnloadRefusedError, is_refusal_of_all, refusal
from rollout.agent.server.session import LoadedModule, RefusedError, ServerLostError, ServerSilentError, Session


def load(session: Session, module: LoadedModule) -> None:
    """Load `module` into the server."""
    try:
        session.load(module.path, module.args)
    except RefusedError as error:
        raise _not_loaded(module, error) from error


def unload(session: Session, loaded: LoadedModule) -> None:
    """Unload the module from the server."""
    try:
        session.unload(loaded.name)
    except RefusedError as error:
        raise not_unloaded(loaded, error) from error


def swap(session: Session, loaded: LoadedModule, to: LoadedModule, *, back: LoadedModule) -> float:
    """Replace `loaded` by `to`. Return the seconds in which the server answered no client; no call is refused.

    If the server refuses `to`, `back` is loaded at once: the same module as `loaded`, from where its files are now.
    """
    started = time.monotonic()
    try:
        unload_refused, load_refused = session.swap(loaded.name, to.path, to.args)
    except RefusedError as error:
        raise _not_loaded(to, error) from error
    seconds = time.monotonic() - started
    if unload_refused:
        # Nothing else, above all no LOAD of the module that is still loaded: its OnLoad would run in the mapped library,
        # which would lose its data type (docs/adr/0009-swaps-and-lines.md).
        raise not_unloaded(loaded, unload_refused) from unload_refused
    if load_refused:
        note = ""
        try:
            session.load(back.path, back.args)
        except (RefusedError, ServerLostError, ServerSilentError) as error:
            note = f"{back.name} {back.version} was not loaded again: {error}"
        raise _not_loaded(to, load_refused, note=note) from load_refused
    return seconds


def _not_loaded(module: LoadedModule, error: RefusedError, *, note: str = "") -> Failure:
    return refusal(error) if is_refusal_of_all(error) else LoadRefusedError(module, error, note=note)


def not_unloaded(loaded: LoadedModule, error: RefusedError) -> Failure:
    """Return why the server has not unloaded the module."""
    return refusal(error) if is_refusal_of_all(error) else UnloadRefusedError(loaded, error)
