"""Refuses an unload that would hurt clients or data, before anything is changed. What is not known counts as harmful."""

import time
from datetime import UTC, datetime, timedelta

from rollout.agent.failure import Failure
from rollout.agent.operations.operation import UNLOAD_SECONDS, Operation
from rollout.agent.operations.scratch import is_type_of_another
from rollout.agent.server.call_history import RecentCalls
from rollout.agent.server.causes import listed, refuse_if_named_in_acl
from rollout.agent.server.module_keys import ModuleKey, TooManyKeysError, first_module_key
from rollout.agent.server.observation import MOST_CONNECTED, clients_in, newest_callers, uptime_in
from rollout.agent.server.session import LoadedModule, RefusedError, Session, calls_in
from rollout.messages import Reason, Way

#: The longest search for keys of a module's types, seconds.
KEYS_SECONDS = 30.0
#: A server with more libraries of functions is not asked for their code.
MOST_LIBRARIES = 100


def refuse_unsafe(operation: Operation, loaded: LoadedModule) -> None:
    """Raises: `Failure` if the module must not be unloaded now: its reason says why."""
    seconds = operation.deadline.step("Checking the module's use", UNLOAD_SECONDS).remaining()
    with operation.node.server.session(seconds) as session:
        try:
            _refuse_aux_data(operation, session, loaded)
            refuse_if_named_in_acl(session, loaded, user=operation.node.settings.server_user)
            if not operation.command.even_if_used:
                _refuse_if_used(operation, session, loaded)
            # The server unloads no module with types, but a start without its line does not know them either.
            if operation.has_types or (operation.has_types is None and _by_restart(operation)):
                _refuse_if_keys(operation, loaded)
        except Failure as failure:
            words = " ".join(filter(None, (failure.message, references(session, loaded))))
            raise Failure(failure.reason, words) from failure


def _by_restart(operation: Operation) -> bool:
    return operation.node.persistence.is_external or operation.command.way is Way.RESTART


def references(session: Session, loaded: LoadedModule) -> str:
    """Return what names the module's commands or options and would fail without it, in words; empty if nothing is known."""
    sentences = []
    if libraries := _libraries(session, loaded):
        sentences.append(f"These libraries of functions name its commands: {listed(libraries)}.")
    if options := _options(session, loaded):
        sentences.append(f"Remove its options from the server's configuration: {listed(options)}.")
    return " ".join(sentences)


def _refuse_aux_data(operation: Operation, session: Session, loaded: LoadedModule) -> None:
    """Refuse a module that writes auxiliary data, if the server writes it to a disk or to a replica.

    If that is not known, an unload is safe: a module with auxiliary data has a data type, so the server refuses.
    """
    aux_data = operation.aux_data
    if not aux_data and not (aux_data is None and _by_restart(operation)):
        return
    info = session.info("persistence") | session.info("replication")
    try:
        saves = session.call("CONFIG", "GET", "save") != ["save", ""]
    except RefusedError:
        saves = True
    found = [
        words
        for words, is_so in (
            ("an append-only file", info.get("aof_enabled") != "0"),
            ("save points", saves),
            ("a master", info.get("role") != "master"),
            ("replicas", info.get("connected_slaves") != "0"),
            ("a restart, which saves its data", operation.command.way is Way.RESTART),
        )
        if is_so
    ]
    if found:
        by = operation.command.aux_data_from
        says = (
            f"Only the scratch servers of {by} have shown that: if this is wrong, decommission or revoke them."
            if by
            else ""
        )
        raise Failure(
            Reason.AUX_DATA,
            f"{loaded.name} {loaded.version} {'writes' if aux_data else 'may write'} auxiliary data, so an RDB file that has it "
            f"is not loaded without the module. This server has {' and '.join(found)}. Keep the module, or replace the server "
            f"by one without it. {says}".rstrip(),
        )


def _refuse_if_used(operation: Operation, session: Session, loaded: LoadedModule) -> None:
    info = session.info("server") | session.info("commandstats")
    now, history = time.monotonic(), operation.node.calls
    history.add(now, run_id=info.get("run_id", ""), uptime=uptime_in(info), counts=calls_in(info))
    recent = history.recent(now, (each.lower() for each in session.commands_of(loaded.name)))
    if recent.calls:
        raise Failure(Reason.IN_USE, f"{_calls(recent)}{_clients(session, recent)} {_STOP}")
    if recent.unknown_seconds:
        until = datetime.now(UTC) + timedelta(seconds=recent.unknown_seconds)
        raise Failure(
            Reason.IN_USE,
            f"Commands of {loaded.name} {loaded.version} were called, and the agent has not observed the server for 10 "
            f"minutes: it is not known if a call was within the last 10 minutes. Without another call, it is known at "
            f"{until:%H:%M:%S} UTC. {_STOP}",
        )


_STOP = 'Stop its clients and retry later, or remove it with "even_if_used": true.'


def _calls(recent: RecentCalls) -> str:
    counts = sorted(recent.calls.items(), key=lambda each: -each[1])
    return f"Calls in the last 10 minutes: {listed([f'{name} {count}' for name, count in counts])}."


def _clients(session: Session, recent: RecentCalls) -> str:
    """Return a sentence that names the newest callers; empty if they are not known, or too many to be listed."""
    try:
        connected = session.info("clients").get("connected_clients", "")
        if not connected.isdecimal() or int(connected) > MOST_CONNECTED:
            return ""
        names = newest_callers(clients_in(session.call("CLIENT", "LIST")), recent.calls)
    except RefusedError:
        return ""
    return f" Newest clients: {', '.join(names)}." if names else ""


_ONLY_A_RESTART = "Without such keys it also stays loaded: it exports data types, so only a restart of the server without it removes it."


def _refuse_if_keys(operation: Operation, loaded: LoadedModule) -> None:
    name = f"{loaded.name} {loaded.version}"
    stays = "" if _by_restart(operation) else f" {_ONLY_A_RESTART}"
    user = operation.node.settings.server_user or "default"
    try:
        key = _key_of(operation, loaded)
    except TooManyKeysError:
        raise Failure(
            Reason.DATA_IN_USE,
            f"It is not known if there are keys of {name}: {KEYS_SECONDS:g} s were not enough to look at all keys. "
            f"Keep the module.{stays}",
        ) from None
    except RefusedError as error:
        raise Failure(
            Reason.DATA_IN_USE,
            f"It is not known if there are keys of {name}: {str(error).rstrip('.')}. Allow the agent to look: "
            f"ACL SETUSER {user} %R~* +select +scan +type +readonly.{stays}",
        ) from error
    if key is not None:
        raise Failure(
            Reason.DATA_IN_USE,
            f"{_found(key)} {name} may need it. Keep the module, or delete all keys of that type first.{stays}",
        )


def _key_of(operation: Operation, loaded: LoadedModule) -> ModuleKey | None:
    """Return a key of a data type that may be the module's, None if there is none."""
    others: set[str] = set()
    while True:
        seconds = operation.deadline.remaining()
        with operation.node.server.session(min(seconds, UNLOAD_SECONDS), encoding_errors="surrogateescape") as session:
            key = first_module_key(
                session, min(seconds, KEYS_SECONDS), besides=others, before_step=operation.deadline.remaining
            )
        if key is None or not is_type_of_another(operation, loaded, key.type):
            return key
        others.add(key.type)


def _found(key: ModuleKey) -> str:
    return f"Database {key.database} has a key of the data type {key.type}, which a module has added."


def _libraries(session: Session, loaded: LoadedModule) -> list[str]:
    """Return the libraries of functions whose code names a command of the module."""
    try:
        count = session.info("memory").get("number_of_libraries", "0")
        if not count.isdecimal() or not 0 < int(count) <= MOST_LIBRARIES:
            return []
        commands = [each.lower() for each in session.commands_of(loaded.name)]
        libraries = [
            dict(zip(each[::2], each[1::2], strict=True)) for each in session.call("FUNCTION", "LIST", "WITHCODE")
        ]
    except RefusedError:
        return []
    return sorted(
        str(each["library_name"])
        for each in libraries
        if any(command in str(each["library_code"]).lower() for command in commands)
    )


def _options(session: Session, loaded: LoadedModule) -> list[str]:
    try:
        return sorted(session.call("CONFIG", "GET", f"{loaded.name}.*")[::2])
    except RefusedError:
        return []
