"""What is checked before the agent ends the server's process, each time. Nothing is changed here."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from rollout.agent.failover import failover
from rollout.agent.failure import Failure, MustWaitError
from rollout.agent.operations.kept_options import refuse_to_lose_options
from rollout.agent.operations.last_check import refuse_to_change, start_with
from rollout.agent.operations.operation import UNLOAD_SECONDS, Operation
from rollout.agent.restart.held import Held
from rollout.agent.restart.risks import why_not_end
from rollout.agent.restart.saving import Resources, resources, why_not_save
from rollout.agent.restart.supervision import Supervision, supervision_of
from rollout.agent.server import place
from rollout.agent.server.session import LoadedModule, RefusedError, Session
from rollout.messages import Reason, WouldStart

#: A replica that has just been started connects to its master within so many seconds.
LINK_SECONDS, POLL_SECONDS = 10.0, 0.2
_LINK_DOWN = "its link to its master is down, so it may have the last copy of the data."


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """`supervision`: how the server is restarted. `run_id`: of its process. `candidates`: the addresses of its replicas, if one of
    them must become the master first."""

    supervision: Supervision
    run_id: str
    candidates: tuple[str, ...] = ()


def approved(operation: Operation, module: LoadedModule | None) -> Approval:
    """Check everything before a restart with `module`, or without the version if None.

    Raises: `Failure`; `MustWaitError` if the server must not be restarted now.
    """
    if other := operation.node.maintenance.held.read():
        words = f"The restart for {other.module_name} {other.version} is not finished."
        raise MustWaitError(Reason.SERVER_NOT_READY, words)
    args = module.args if module else ()
    operation.node.persistence.prepare_switch(operation.server_target.parent, args, operation.load_order)
    _refuse_unless_it_starts(operation, module)
    return approved_again(operation, module)


def approved_again(operation: Operation, module: LoadedModule | None) -> Approval:
    """Check what may have changed since `approved`. Raises: as `approved`."""
    node, command = operation.node, operation.command
    seconds = operation.deadline.step("Reading the server's state", UNLOAD_SECONDS).remaining()
    with node.server.session(seconds) as session:
        refuse_to_change(node, command, session)
        info = session.info("server", "replication", "persistence", "memory", "cluster")
        loaded = next((each for each in session.modules() if each.name == command.module_name), None)
        if module and loaded:
            refuse_to_lose_options(operation, session, loaded)
        save, directory, file = (parameter(session, each) for each in ("save", "dir", "dbfilename"))
    found = supervision_of(node.settings, info)
    if found.problem:
        words = f"{command.module_name} {command.version} needs a restart. {found.refusal}"
        raise Failure(Reason.RESTART_REQUIRED, words)
    candidates = _candidates(operation, info)
    start, may_discard = node.persistence.read(), command.may_discard_data
    if not candidates and (refused := why_not_end(info, save, start, may_discard_data=may_discard)):
        raise Failure(*refused)
    pid = node.persistence.reader.pid
    left = resources(pid, directory, file) if pid and directory and file else Resources()
    if why := why_not_save(info, left):
        raise MustWaitError(Reason.SAVE_UNSAFE, why)
    if candidates:
        failover.check(node.server, node.settings, candidates, command.pause_seconds)
    return Approval(supervision=found, run_id=info.get("run_id", ""), candidates=candidates)


def refuse_to_end_again(operation: Operation, held: Held) -> None:
    """Check if the server, which this operation has failed over or restarted, may be ended: it may have become a master since.

    Raises: `Failure`.
    """
    until = time.monotonic() + LINK_SECONDS
    while words := _why_not_end_again(operation, held):
        if words != _LINK_DOWN or time.monotonic() > until:
            words = f"the server stays as it is, because it must not be restarted: {words}"
            raise Failure(Reason.RESTART_FAILED, words)
        time.sleep(POLL_SECONDS)


def _why_not_end_again(operation: Operation, held: Held) -> str:
    node, command = operation.node, operation.command
    with node.server.session() as session:
        info, save = session.info("replication", "persistence", "cluster"), parameter(session, "save")
    role, expected = place.role(info), command.expects.role if command.expects else ""
    if held.failed_over:
        expected = "replica"
    if expected and role != expected:
        return f"it is a {role or 'server of unknown role'} now."
    if refused := why_not_end(info, save, node.persistence.read(), may_discard_data=command.may_discard_data):
        return refused[1]
    # While it reads its own data, it has nothing but what is on its disk, and its end writes nothing there. It may also read
    # those of its master: then another restart would begin the full synchronization again.
    is_reading = info.get("loading") == "1" and info.get("master_sync_in_progress") != "1"
    return _LINK_DOWN if role == "replica" and info.get("master_link_status") != "up" and not is_reading else ""


def _candidates(operation: Operation, info: Mapping[str, str]) -> tuple[str, ...]:
    """Return the replicas of a master whose shard fails over."""
    if operation.node.settings.failover == "none" or place.role(info) != "master":
        return ()
    return tuple(each.address for each in place.replicas(info))


def _refuse_unless_it_starts(operation: Operation, module: LoadedModule | None) -> None:
    """Raises: `Failure` if a scratch server has not shown that a start after the change succeeds."""
    if operation.node.settings.scratch == "off":
        return
    found = start_with(operation, module)
    if found.result is WouldStart.NO:
        raise Failure(Reason.SCRATCH_LOAD_FAILED, f"The server would not start after this change: {found.reason}")
    if found.result is not WouldStart.YES:
        raise Failure(
            Reason.SCRATCH_UNAVAILABLE, f"It is not known if the server would start after this change: {found.reason}"
        )
    operation.watch.repaired_start = found


def parameter(session: Session, name: str) -> str | None:
    """Return a parameter of the server, None if the agent's user may not read it."""
    try:
        answer = session.call("CONFIG", "GET", name)
    except RefusedError:
        return None
    return str(answer[1]) if answer else None
