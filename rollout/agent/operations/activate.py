"""Loads an installed version into the running server, probes it, watches it, and keeps it over a restart."""

import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rollout.agent.failure import Failure
from rollout.agent.module_files.digests import file_digest
from rollout.agent.operations.external import wait_for_load
from rollout.agent.operations.kept_options import refuse_to_lose_options
from rollout.agent.operations.last_check import refuse_to_change, refuse_unless_it_repairs
from rollout.agent.operations.operation import LOAD_SECONDS, UNLOAD_SECONDS, Operation
from rollout.agent.operations.scratch import try_in_scratch
from rollout.agent.operations.settle import (
    RestartedError,
    crashed,
    is_restarted,
    leaves_writes_in_aof,
    noted_hang,
    settle,
    silent,
)
from rollout.agent.operations.way_back import way_back
from rollout.agent.server.causes import (
    LoadRefusedError,
    refusal,
    refuse_if_named_in_acl,
    taken_commands,
    why_not_loaded,
)
from rollout.agent.server.facts import ServerFacts, observe
from rollout.agent.server.options import read_options, set_options
from rollout.agent.server.session import (
    LoadedModule,
    RefusedError,
    ServerLoadingError,
    ServerLostError,
    ServerSilentError,
    Session,
)
from rollout.agent.server.swap import load, swap
from rollout.messages import Command, Package, Phase, Reason, Restart, ScratchLoad, WayBack


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    """What was done. `has_loaded`: the server had to load the version. `swap_seconds`: set if it replaced another one.

    `message`: which options of the former version were lost. `scratch`: of the load before, in a scratch server. `way_back`: from
    the version, None if it has replaced nothing, or has no data types.
    """

    has_loaded: bool
    swap_seconds: float | None = None
    message: str = ""
    scratch: ScratchLoad | None = None
    restart: Restart | None = None
    way_back: WayBack | None = None


NOTHING_DONE = Activated(has_loaded=False)


def activate(operation: Operation, package: Package, done: Activated = NOTHING_DONE) -> Activated:
    """Load, probe and settle the version, add it to the include file, and try the way back. `done`: by a restart before.

    Raises: `Failure`. Then `undo` reverts what was changed in the server.
    """
    module = module_to_load(operation, package)
    while True:
        try:
            done = _activate(operation, package, module, done)
        except RestartedError:
            continue
        if not operation.has_line(module):
            operation.node.persistence.refuse_new_line(operation.server_target.parent)
        operation.commit()
        operation.write_line(module)
        if done.has_loaded:
            operation.node.adoptions.forget(module.name)
        return replace(done, way_back=way_back(operation, module))


def _activate(operation: Operation, package: Package, module: LoadedModule, done: Activated) -> Activated:
    """Load the module if the server does not have it, probe it, and let the server settle. `done`: before a restart."""
    facts = observed(operation)
    is_loaded = has_loaded(operation, facts, module)
    if not is_loaded:
        operation.report(Phase.LOADING)
        refuse_unless_it_repairs(operation, module)
    if operation.node.persistence.is_external:
        done = replace(done, has_loaded=done.has_loaded or not is_loaded)
        if not is_loaded:
            done = replace(done, scratch=try_first(operation, package, module, facts))
        facts = wait_for_load(operation, module)
    elif not is_loaded:
        done = _load(operation, package, module, facts)
    operation.report(Phase.PROBING)
    _probe(operation, facts.run_id)
    is_new = done.has_loaded or operation.resumed or bool(operation.watch.restarts)
    if operation.command.settle_seconds and (is_new or not operation.has_line(module)):
        operation.report(Phase.SETTLING)
        settle(operation, facts.run_id, module)
    return done


def refuse_foreign(operation: Operation, modules: Iterable[LoadedModule]) -> None:
    """Raises: `Failure` (module_not_ours) if the server has a module of this name that Modfleet did not load."""
    for loaded in modules:
        if loaded.name == operation.command.module_name and not operation.node.module_store.is_ours(loaded.path):
            raise Failure(
                Reason.MODULE_NOT_OURS,
                f"The server has loaded {loaded.name} {loaded.version} from {loaded.path or 'its own program'}, "
                "which Modfleet did not install. Adopt it with `modfleet adopt`, or unload it and remove it from the server's "
                "configuration first.",
            )


@contextmanager
def reported_as_crash(operation: Operation) -> Iterator[None]:
    """Report a lost connection as a crash that the module caused, and a silent server as one that hangs."""
    try:
        with noted_hang(operation):
            yield
    except ServerLostError as error:
        raise crashed(operation) from error
    except ServerSilentError as error:
        raise silent(operation, error) from error


def module_to_load(operation: Operation, package: Package) -> LoadedModule:
    return LoadedModule(
        name=operation.command.module_name,
        version=operation.command.version,
        path=str(operation.server_target / package.module_file),
        args=_args(operation.command),
    )


def _args(command: Command) -> tuple[str, ...]:
    if command.args is not None:
        return command.args
    try:
        return tuple(shlex.split(command.command_line_args))
    except ValueError as error:
        raise Failure(Reason.LOAD_FAILED, f"The module's command_line_args cannot be split: {error}.") from error


def has_loaded(operation: Operation, facts: ServerFacts, module: LoadedModule) -> bool:
    """Return True if the server has the files and the arguments of `module` in memory."""
    return any(operation.is_current(each, facts.run_id) and each.args == module.args for each in facts.modules)


def observed(operation: Operation) -> ServerFacts:
    """Return the state of the server. Raises: `Failure`, also if its module of this name is foreign."""
    seconds = operation.deadline.step("Reading the server's state", UNLOAD_SECONDS).remaining()
    with operation.node.server.session(seconds) as session:
        try:
            facts = observe(session)
        except (ServerLoadingError, RefusedError):  # it reads its data, from its disk or from its master
            refuse_to_change(operation.node, operation.command, session)
            raise
    refuse_foreign(operation, facts.modules)
    return facts


def try_first(operation: Operation, package: Package, module: LoadedModule, facts: ServerFacts) -> ScratchLoad | None:
    """Check the file, and load it into a scratch server. Raises: `Failure`."""
    # A truncated .so kills the server at MODULE LOAD (SIGBUS), so it is read again; before the swap, because it takes long.
    expected = next(member.sha256 for member in package.members if member.path == package.module_file)
    if file_digest(operation.target / package.module_file) != expected:
        raise Failure(Reason.CHECKSUM_MISMATCH, f"`{package.module_file}` changed on the node's disk. Check the disk.")
    return try_in_scratch(operation, package, module, facts)


def _load(operation: Operation, package: Package, module: LoadedModule, facts: ServerFacts) -> Activated:
    scratch = try_first(operation, package, module, facts)
    operation.node.persistence.prepare(operation.server_target.parent, module.args, operation.load_order)
    loaded = next((each for each in facts.modules if each.name == module.name), None)
    seconds = operation.deadline.step("Loading", LOAD_SECONDS).remaining()
    with operation.node.server.session(seconds) as session:
        if session.info("server").get("run_id") != facts.run_id:
            raise Failure(Reason.SERVER_UNREACHABLE, "The server was restarted before it got the module. Retry.")
        operation.server_log.mark(session)
        operation.watch.look_before(session, module.name, operation.before.commands)
        with reported_as_crash(operation):
            try:
                swap_seconds = _load_or_swap(operation, session, loaded, module)
            except LoadRefusedError as refused:
                restore_options(operation, session)
                raise _explained(operation, session, refused) from refused
            operation.watch.loads = session.loads()
            # At once: from now on there may be data that need it.
            if operation.has_types is not False or leaves_writes_in_aof(session, module.name):
                operation.write_line(module)
            message = restore_options(operation, session) if loaded else ""
            _refuse_unknown_option_lines(operation, session)
    operation.node.module_store.clear_replaced(operation.command.module_name, operation.command.version)
    return Activated(has_loaded=True, swap_seconds=swap_seconds, message=message, scratch=scratch)


def _load_or_swap(
    operation: Operation, session: Session, loaded: LoadedModule | None, module: LoadedModule
) -> float | None:
    if loaded is None:
        refuse_to_change(operation.node, operation.command, session)
        load(session, module)
        return None
    refuse_to_lose_options(operation, session, loaded)
    user = operation.node.settings.server_user
    refuse_if_named_in_acl(session, loaded, user=user, keeps=operation.command.commands)
    refuse_to_change(operation.node, operation.command, session)
    return swap(session, loaded, module, back=replace(loaded, path=operation.path_now(loaded)))


def restore_options(operation: Operation, session: Session) -> str:
    """Set the options of the module again as they were before the operation. Return which were lost, one sentence."""
    name, options = operation.command.module_name, operation.before.options
    if options is None:
        return "Options that were set at run time are not known: the agent's user may not call CONFIG GET."
    refused = set_options(session, name, options)
    lost = ", ".join(f"{each}={options[each]} ({why})" for each, why in sorted(refused.items()))
    return f"The server refused these options of the former version: {lost}." if lost else ""


def _refuse_unknown_option_lines(operation: Operation, session: Session) -> None:
    """Raises: `Failure` (persistence_conflict) if the configuration sets an option that the version does not have: the next
    start of the server would end at that line."""
    name = operation.command.module_name
    lines = operation.node.persistence.option_lines(name)
    options = read_options(session, name) if lines else None
    unknown = [each for each in lines if options is not None and each.name not in {key.lower() for key in options}]
    if unknown:
        raise Failure(
            Reason.PERSISTENCE_CONFLICT,
            f"{name} {operation.command.version} has no option {unknown[0].name}, and the next start of the server would end "
            f"at the line {unknown[0].place}. Remove the line, then retry.",
        )


def _explained(operation: Operation, session: Session, refused: LoadRefusedError) -> Failure:
    """Return the cause of a refused load, as far as the server and its log tell."""
    try:
        taken = taken_commands(session, refused.module, operation.command.commands)
    except (RefusedError, Failure):
        taken = {}
    return why_not_loaded(refused, operation.server_log.lines(), taken)


def _probe(operation: Operation, run_id: str) -> None:
    command = operation.command
    try:
        with noted_hang(operation), operation.node.server.session(operation.deadline.remaining()) as session:
            if session.info("server").get("run_id") != run_id and is_restarted(operation, run_id):
                raise RestartedError
            loaded = [each for each in session.modules() if operation.is_at_target(each)]
            missing = session.missing(command.commands)
            session.ping()
    except RefusedError as error:
        if error.lacks_permission:
            raise refusal(error) from error
        raise Failure(Reason.PROBE_FAILED, f"The server refuses the probe: {error}.") from error
    except Failure as failure:
        if failure.reason is not Reason.SERVER_UNREACHABLE:
            raise
        is_restarted(operation, run_id, failure)  # it was reachable before the load
        raise RestartedError from failure
    if [(each.name, each.version) for each in loaded] != [(command.module_name, command.version)]:
        found = ", ".join(f"{each.name} {each.version}" for each in loaded) or "nothing"
        raise Failure(
            Reason.PROBE_FAILED,
            f"The server lists {found} instead of {command.module_name} {command.version}: "
            "name and version in module.json must be those that the module registers.",
        )
    if missing:
        raise Failure(Reason.PROBE_FAILED, f"The module was loaded but does not answer to {', '.join(missing)}.")
