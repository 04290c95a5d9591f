"""Unloads a module whose commands may be in the server's append-only file, so that each start of the server can read it.

The line in the include file stays until the file has none of these commands any more: until then, a start needs the module.
"""

import time
from collections.abc import Mapping

from rollout.agent.failure import Failure
from rollout.agent.operations.last_check import refuse_to_change
from rollout.agent.operations.operation import Operation
from rollout.agent.operations.safe_removal import refuse_unsafe
from rollout.agent.server.session import LoadedModule, RefusedError, Session, calls_in
from rollout.agent.server.swap import not_unloaded
from rollout.messages import Reason

#: The longest time of one rewrite, seconds.
REWRITE_SECONDS = 1200.0
#: Seconds between two looks at it.
POLL_SECONDS = 0.1


def writes_to_aof(session: Session, loaded: LoadedModule) -> frozenset[str]:
    """Return the commands of the module that the append-only file may contain; none if the server writes no such file."""
    if not session.writes_aof():
        return frozenset()
    return frozenset(each.lower() for each in session.write_commands_of(loaded.name))


def rewrite(operation: Operation, session: Session) -> None:
    """Rewrite the append-only file. Raises: `Failure` (aof_rewrite_failed) if that does not succeed in time."""
    end = time.monotonic() + min(REWRITE_SECONDS, operation.deadline.remaining())
    _wait(operation, session, end)  # one that runs already may have begun before the newest calls
    try:
        session.call("BGREWRITEAOF")
    except RefusedError as error:
        advice = ""
        if error.lacks_permission:
            user = operation.node.settings.server_user or "default"
            advice = f" Allow it: ACL SETUSER {user} +bgrewriteaof. Then retry."
        raise _failed(f"{str(error).rstrip('.')}.{advice}") from error
    if _wait(operation, session, end).get("aof_last_bgrewrite_status") != "ok":
        raise _failed("BGREWRITEAOF failed. Read the server's log, and check its disk and memory. Then retry.")


def unload_and_rewrite(operation: Operation, session: Session, loaded: LoadedModule, writes: frozenset[str]) -> None:
    """Unload the module after a rewrite, and rewrite the file again if a command of `writes` was called in between.

    A module that declares data types is unloaded first: most servers refuse that, and were rewritten in vain.
    Raises: `Failure`. Then the module is loaded as before.
    """
    before = None
    if not operation.has_types:
        before = calls_in(session.info("commandstats"))
        rewrite(operation, session)
        refuse_unsafe(operation, loaded)  # again: the rewrite may have taken minutes
        refuse_to_change(operation.node, operation.command, session)
    operation.commit()
    calls, refused = session.unload_and_count(loaded.name)
    if refused is not None:
        raise not_unloaded(loaded, refused) from refused
    if (
        before is not None
        and _is_counted(before, calls)
        and all(calls.get(each) == before.get(each) for each in writes)
    ):
        return
    try:
        rewrite(operation, session)
    except Failure:
        session.load(loaded.path, loaded.args)
        raise


def _is_counted(before: Mapping[str, int], calls: Mapping[str, int]) -> bool:
    """Return False if the counts were reset since `before`, by CONFIG RESETSTAT: no count falls otherwise, and BGREWRITEAOF
    was called."""
    has_fallen = any(calls.get(name, 0) < count for name, count in before.items())
    return not has_fallen and calls.get("bgrewriteaof", 0) > before.get("bgrewriteaof", 0)


def _wait(operation: Operation, session: Session, end: float) -> dict[str, str]:
    """Wait until no rewrite runs. Return INFO persistence."""
    while True:
        info = session.info("persistence")
        if info.get("aof_rewrite_in_progress") == info.get("aof_rewrite_scheduled") == "0":
            return info
        if time.monotonic() > end:
            raise _failed("BGREWRITEAOF has not ended in time. Retry when the server has less to do.")
        operation.pause(POLL_SECONDS)
        operation.deadline.remaining()


def _failed(words: str) -> Failure:
    return Failure(
        Reason.AOF_REWRITE_FAILED,
        f"The append-only file may contain commands of the module, and could not be rewritten: {words}",
    )
