"""The way back after a version has taken the place of another one: can the former one read what the new one writes?

Values of the live server are tried in scratch servers. Whatever goes wrong here, the operation has succeeded: the answer is
`unknown` then. The data from before the change are kept, because the way may be closed. docs/adr/0019-restarts.md says more.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rollout.agent.failure import AgentError, Failure
from rollout.agent.inspection.mounts import sees_same
from rollout.agent.inspection.process import server_pid, start_of
from rollout.agent.operations.before_restart import parameter
from rollout.agent.operations.operation import Operation
from rollout.agent.operations.scratch import as_agent_sees, other_modules, scratch_args
from rollout.agent.restart.kept_data import Keeper, Kept, KeptData
from rollout.agent.scratch.live import LiveServer, live_server
from rollout.agent.scratch.types import lack_type
from rollout.agent.scratch.way_back import CannotReadError, NotTriedError, Versions, read_back
from rollout.agent.server.module_keys import MOST_BYTES, some_module_keys, values_of
from rollout.agent.server.session import LoadedModule, RefusedError, Session
from rollout.agent.server.texts import storable
from rollout.messages import Way, WayBack, WayBackResult

log = logging.getLogger(__name__)

#: The longest search for keys in the live server, seconds.
SEARCH_SECONDS = 3.0
#: A call to the live server may take so long, seconds.
CALL_SECONDS = 5.0
#: Limits of a report, characters.
LONGEST_MESSAGE, LONGEST_PATH = 1000, 256
OPEN, CLOSED, UNKNOWN = WayBackResult.OPEN, WayBackResult.CLOSED, WayBackResult.UNKNOWN


def way_back(operation: Operation, module: LoadedModule) -> WayBack | None:
    """Return the way back from `module`, which the server has loaded. None if it has no data types, or has replaced nothing.

    Never raises.
    """
    try:
        former = former_of(operation)
    except (Failure, OSError) as error:
        log.warning("The former version is not known: %s", error)
        return WayBack(result=UNKNOWN, message=storable(str(error))[:LONGEST_MESSAGE])
    has_types = operation.has_types
    if former is None or (operation.command.way is not Way.RESTART and not has_types):
        return None
    result, message, tried = OPEN, "", 0
    if has_types is not False:
        try:
            tried = _try(operation, module, former)
        except CannotReadError as error:
            result, message = CLOSED, str(error)
        except RefusedError as error:
            result, message = UNKNOWN, _advice(operation, error)
        except (AgentError, OSError) as error:
            result, message = UNKNOWN, str(error)
        except Exception as error:  # the operation has succeeded
            log.exception("The way back from %s cannot be tried", module.name)
            result, message = UNKNOWN, f"The agent failed: {error!r}. See its log."
    if result is OPEN and (kept := _kept_by(operation)):
        with suppress(OSError):
            KeptData(operation.node.settings.journal_dir).open_way(kept)
    return WayBack(
        result=result,
        message=storable(message)[:LONGEST_MESSAGE],
        former_version=former.version,
        tried=tried,
        kept_file=kept_file(operation),
    )


def former_of(operation: Operation) -> LoadedModule | None:
    """Return the module in whose place the operation puts another one, None if there is none, or if the operation goes back."""
    former, command = operation.before.loaded, operation.command
    if former is None or command.undoes is not None:
        return None
    is_other = former.version != command.version or operation.former_target or _was_replaced(operation)
    return former if is_other else None


def _was_replaced(operation: Operation) -> bool:
    """Return True if the server had older files of the version in memory, which an earlier operation has replaced."""
    node, command = operation.node, operation.command
    under = node.module_store.replaced_under(command.module_name, command.version)
    held = node.maintenance.held.of(command) if under else None
    return bool(under) and under in {operation.facts and operation.facts.run_id, held and held.run_id}


def _try(operation: Operation, module: LoadedModule, former: LoadedModule) -> int:
    """Return how many keys the former version has read, at least one. Raises: `CannotReadError`, `AgentError`, `OSError`."""
    settings, store = operation.node.settings, operation.node.module_store
    if settings.scratch == "off":
        raise NotTriedError("MODFLEET_SCRATCH is off.")
    if former.version == operation.command.version and not operation.former_target:
        raise NotTriedError("The files of the former build are deleted.")
    former = as_agent_sees(store, replace(former, path=operation.path_now(former)))
    if not Path(former.path).is_file():
        raise NotTriedError(f"{former.path} does not exist.")
    end = time.monotonic() + operation.deadline.step("Trying the way back", settings.scratch_seconds).remaining()
    with operation.node.server.session() as session:
        live = live_server(settings, session.info("server"))
        others = tuple(other_modules(operation, session.modules()))
    new = as_agent_sees(store, module)
    if operation.command.scratch_args is not None:
        new, former = (replace(each, args=scratch_args(operation, each)) for each in (new, former))
    versions = Versions(former=former, new=new, others=others)
    values, untried = _values(operation, live, versions, end)
    # Also without a key: the new version may save auxiliary data.
    read_back(live, versions, values, seconds=_left(end))
    if untried:
        raise NotTriedError(f"No value of the data type {untried[0]} could be tried.")
    if not values:
        raise NotTriedError("No key of its data types was found.")
    return len(values)


def _values(
    operation: Operation, live: LiveServer, versions: Versions, end: float
) -> tuple[Sequence[bytes], Sequence[str]]:
    """Return values of the module's data types, and the types of which there are keys, but none that could be taken."""
    server = operation.node.server
    with server.session(CALL_SECONDS, encoding_errors="surrogateescape") as session:
        keys = some_module_keys(session, min(SEARCH_SECONDS, _left(end) / 2))
    keys = {each: some for each, some in keys.items() if _is_of(versions.new, each, live, versions.others, end)}
    values, untried, size = list[bytes](), list[str](), 0
    with server.session(CALL_SECONDS, encoding_errors="surrogateescape") as session:
        for each, some in keys.items():
            taken = values_of(session, some, _left(end) / 2, most_bytes=MOST_BYTES - size)
            untried += [] if taken else [each]
            values, size = [*values, *taken], size + sum(map(len, taken))
    return values, untried


def _is_of(new: LoadedModule, name: str, live: LiveServer, others: Sequence[LoadedModule], end: float) -> bool:
    """Return True if the module has the data type. Raises: `NotTriedError` if that is not known."""
    is_lacking = lack_type(live, [new], name, seconds=_left(end))
    if is_lacking is not None:
        return not is_lacking
    # It may need the other modules. They are asked without it: a type of the live server that they lack is its own.
    if (do_others_lack := lack_type(live, others, name, seconds=_left(end))) is None:
        raise NotTriedError(f"It is not known which module has the data type {name}.")
    return do_others_lack


def _left(end: float) -> float:
    if (left := end - time.monotonic()) <= 0:
        raise NotTriedError("The time of the trial was over.")
    return left


def _advice(operation: Operation, error: RefusedError) -> str:
    user, said = operation.node.settings.server_user or "default", str(error).rstrip(".")
    if not error.lacks_permission:
        return f"The server refused: {said}."
    return (
        f"{said}. Allow the agent to look: ACL SETUSER {user} %R~* +select +scan +type +readonly +memory|usage +dump."
    )


def data_to_keep(operation: Operation, session: Session, run_id: str) -> Keeper:
    """Note that the server is about to save data that the former version can read, and return what keeps them.

    `run_id`: of the server's process.
    """
    node, command, former = operation.node, operation.command, former_of(operation)
    if former is None or operation.has_types is False or _kept_for(operation):
        return Keeper()  # what was kept before serves this operation
    if not any(each.name == former.name and not operation.is_current(each, run_id) for each in session.modules()):
        return Keeper()  # it has loaded the new version, so its data are not those from before
    directory, file = (parameter(session, each) for each in ("dir", "dbfilename"))
    pid = node.persistence.reader.pid
    if not (directory and file and pid) or sees_same(directory, directory, pid) is False:
        problem = "the agent does not see the file that the server saves"
    else:
        try:
            return Keeper(
                KeptData(node.settings.journal_dir).note(
                    rollout=command.rollout,
                    module_name=command.module_name,
                    version=command.version,
                    former_version=former.version,
                    saved=Path(directory) / file,
                )
            )
        except OSError as error:
            problem = str(error)
    operation.watch.remarks.append(f"The data from before the change are not kept: {problem}.")
    return Keeper()


def put_back(operation: Operation, session: Session) -> bool:
    """Put the data from before in the place of those that the server would load, if the operation goes back to the version that has
    saved them, that version cannot read the new ones, and they may be lost.

    Return True if that is done: then the server must not save its data at its end.
    """
    kept, problem = _may_put_back(operation), ""
    if kept is None:
        return False
    directory, file = (parameter(session, each) for each in ("dir", "dbfilename"))
    if session.info("persistence").get("aof_enabled") != "0":
        problem = "the server reads its append-only file"
    elif not (directory and file) or Path(directory) / file != Path(kept.saved):
        problem = f"it is not known that the server reads {kept.saved}"
    else:
        try:
            KeptData(operation.node.settings.journal_dir).put_back(kept)
            words = f"The data from before version {kept.version} were put back, without what was written since."
        except OSError as error:
            problem = str(error)
    if problem:
        words = f"The data from before are not put back: {problem}. docs/howto/restarts.md says how to do it by hand."
    operation.watch.remarks.append(words)
    return not problem


def _may_put_back(operation: Operation) -> Kept | None:
    """Return the data to put back. A rollback puts none back: it has the permissions of its rollout, which were given for another loss."""
    command, kept = operation.command, _kept_for(operation)
    is_meant = command.may_discard_data and command.undoes is None
    return kept if kept and is_meant and not kept.is_open else None


def save_own(operation: Operation) -> None:
    """Let the server, which has not ended, save its own data: `put_back` may have replaced them on its disk."""
    if _may_put_back(operation) is None:
        return
    try:
        with operation.node.server.session() as session:
            session.call("BGSAVE")
    except (Failure, RefusedError) as error:
        log.warning("The server has not saved its data again, so its file may be the one from before: %s", error)


def where_kept(operation: Operation) -> str:
    """Return where the data from before are that the operation's version has saved, and how to go back to them, one sentence; empty
    if none are kept, or if it can read the new ones."""
    kept = _kept_for(operation)
    if kept is None or kept.is_open or kept.file is None:
        return ""
    is_allowed = operation.command.may_discard_data
    how = "goes back to them by hand" if is_allowed else 'goes back to them with "may_discard_data": true'
    return f"The data from before version {kept.version} are in {kept.file}. A person {how}, as docs/howto/restarts.md says."


def forget_kept(operation: Operation) -> None:
    """Delete the data that the version has saved before another one took its place: it runs again."""
    if kept := _kept_for(operation):
        with suppress(OSError):
            KeptData(operation.node.settings.journal_dir).drop(kept)


def _kept_for(operation: Operation) -> Kept | None:
    """Return the kept data that the operation's version has saved."""
    command = operation.command
    notes = KeptData(operation.node.settings.journal_dir).of(command.module_name)
    return next((each for each in notes if each.former_version == command.version != each.version), None)


def _kept_by(operation: Operation) -> Kept | None:
    """Return the data that are kept because of this operation."""
    command = operation.command
    notes = KeptData(operation.node.settings.journal_dir).of(command.module_name)
    return next((each for each in notes if (each.rollout, each.version) == (command.rollout, command.version)), None)


def kept_before(operation: Operation) -> Keeper:
    """Return what keeps the data that an agent has noted in this operation before it was killed."""
    return Keeper(_kept_by(operation))


def keep(operation: Operation, keeper: Keeper) -> None:
    """Finish that when the next process of the server runs."""
    try:
        with operation.node.server.session() as session:
            pid = server_pid(operation.node.settings.server_url, session.info("server"))
    except (Failure, RefusedError):
        pid = None
    if problem := keeper.finish(start_of(pid) if pid else None):
        operation.watch.remarks.append(problem)


def kept_file(operation: Operation) -> str:
    """Return where the data from before this operation are, empty if they are not kept."""
    kept = _kept_by(operation)
    path = str(kept.file or "") if kept else ""
    return path if len(path) <= LONGEST_PATH and storable(path) == path else ""
