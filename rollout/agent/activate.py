"""Loads a version that is in place into the running server, probes it, watches it, and makes it last over a restart."""

import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rollout.agent.digests import file_digest
from rollout.agent.failure import Failure
from rollout.agent.job import LOAD_SECONDS, PROBE_SECONDS, UNLOAD_SECONDS, Job
from rollout.agent.node import ServerFacts, observe
from rollout.agent.server import LoadedModule, RefusedError, ServerLostError, ServerSilentError, Session
from rollout.agent.settle import crashed, refuse_restarted, settle
from rollout.agent.swap import load, swap
from rollout.messages import Package, Phase, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    """Whether the server had to load the version; `swap_seconds` if it replaced another one."""

    has_loaded: bool
    swap_seconds: float | None = None


def activate(job: Job, package: Package) -> Activated:
    """What was done so that the version is loaded, probed, settled and in the include file.

    Raises: `Failure`. What it changed in the server until then is for `undo`.
    """
    module = _wanted(job, package)
    facts = _look(job)
    done = Activated(has_loaded=False)
    if not any(job.is_current(each, facts.run_id) and each.args == module.args for each in facts.modules):
        job.say(Phase.LOADING)
        done = _load(job, package, module, facts)
    job.say(Phase.PROBING)
    _probe(job, facts.run_id)
    if job.command.settle_seconds and (done.has_loaded or job.resumed or not job.has_line(module)):
        job.say(Phase.SETTLING)
        settle(job, facts.run_id)
    job.commit()
    job.write_line(module)
    return done


def refuse_foreign(job: Job, modules: Iterable[LoadedModule]) -> None:
    """Raises: `Failure` (module_not_ours) when somebody else loaded a module of that name."""
    for loaded in modules:
        if loaded.name == job.command.module_name and not job.node.folder.is_ours(loaded.path):
            raise Failure(
                Reason.MODULE_NOT_OURS,
                f"The server has loaded {loaded.name} {loaded.version} from {loaded.path or 'its own program'}, "
                "which Modfleet did not install: unload it and remove it from the server's configuration first.",
            )


@contextmanager
def told_as_crash(job: Job) -> Iterator[None]:
    """A connection that breaks in here is a crash that the module caused, and silence is time that ran out."""
    try:
        yield
    except ServerLostError as error:
        raise crashed(job) from error
    except ServerSilentError as error:
        name = f"{job.command.module_name} {job.command.version}"
        raise Failure(Reason.NODE_DEADLINE, f"The server is still busy with {name}: {error.message}") from error


def _wanted(job: Job, package: Package) -> LoadedModule:
    try:
        args = tuple(shlex.split(job.command.command_line_args))
    except ValueError as error:
        raise Failure(Reason.LOAD_FAILED, f"The module's command_line_args cannot be split: {error}.") from error
    return LoadedModule(
        name=job.command.module_name,
        version=job.command.version,
        path=str(job.server_target / package.module_file),
        args=args,
    )


def _look(job: Job) -> ServerFacts:
    seconds = job.deadline.step("Looking at the server", UNLOAD_SECONDS).remaining()
    with job.node.server.session(seconds) as session:
        facts = observe(session)
    refuse_foreign(job, facts.modules)
    return facts


def _load(job: Job, package: Package, module: LoadedModule, facts: ServerFacts) -> Activated:
    # A truncated .so kills the server at MODULE LOAD (SIGBUS), so it is read once more; before the swap, for it lasts.
    expected = next(member.sha256 for member in package.members if member.path == package.module_file)
    if file_digest(job.target / package.module_file) != expected:
        raise Failure(Reason.CHECKSUM_MISMATCH, f"`{package.module_file}` changed on the node's disk: check the disk.")
    loaded = next((each for each in facts.modules if each.name == module.name), None)
    seconds = job.deadline.step("Loading", LOAD_SECONDS).remaining()
    with job.node.server.session(seconds) as session:
        if session.info("server").get("run_id") != facts.run_id:
            raise Failure(Reason.SERVER_UNREACHABLE, "The server was restarted before it got the module: retry.")
        with told_as_crash(job):
            if loaded is None:
                load(session, module)
                swap_seconds = None
            else:
                swap_seconds = swap(session, loaded, module, back=replace(loaded, path=job.path_now(loaded)))
            if job.command.has_types or _leaves_writes_in_aof(session, module.name):
                job.write_line(module)
    job.node.folder.clear_replaced(job.command.module_name, job.command.version)
    return Activated(has_loaded=True, swap_seconds=swap_seconds)


def _leaves_writes_in_aof(session: Session, module_name: str) -> bool:
    """Whether a start may read the module's commands from the AOF; also if the server does not say."""
    try:
        return session.writes_aof() and bool(session.write_commands_of(module_name))
    except RefusedError:
        return True


def _probe(job: Job, run_id: str) -> None:
    command = job.command
    seconds = job.deadline.step("Probing", PROBE_SECONDS).remaining()
    try:
        with job.node.server.session(seconds) as session, told_as_crash(job):
            refuse_restarted(job, session, run_id)
            loaded = [each for each in session.modules() if job.is_at_target(each)]
            missing = session.missing(command.commands)
            session.ping()
    except RefusedError as error:
        raise Failure(Reason.PROBE_FAILED, f"The server refuses the probe: {error}.") from error
    except Failure as failure:
        if failure.reason is Reason.SERVER_UNREACHABLE:  # it could be reached before the load
            raise crashed(job, failure) from failure
        raise
    if [(each.name, each.version) for each in loaded] != [(command.module_name, command.version)]:
        found = ", ".join(f"{each.name} {each.version}" for each in loaded) or "nothing"
        raise Failure(
            Reason.PROBE_FAILED,
            f"The server lists {found} instead of {command.module_name} {command.version}: "
            "name and version in module.json must be those that the module registers.",
        )
    if missing:
        raise Failure(Reason.PROBE_FAILED, f"The module was loaded but does not answer to {', '.join(missing)}.")
