"""Loads a version that is in place into the running server, probes it, and makes it last over a restart."""

import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rollout.agent.digests import file_digest
from rollout.agent.failure import Failure
from rollout.agent.job import LOAD_SECONDS, PROBE_SECONDS, UNLOAD_SECONDS, Job
from rollout.agent.node import observe
from rollout.agent.server import LoadedModule, RefusedError, ServerLostError, ServerSilentError, Session
from rollout.messages import Package, Phase, Reason


def activate(job: Job, package: Package) -> bool:
    """Whether the server had to load the version; either way it is loaded, probed and in the include file.

    Raises: `Failure`. What it changed in the server until then is for `undo`.
    """
    args = _arguments(job)
    has_to_load = _make_room(job)
    if has_to_load:
        job.say(Phase.LOADING)
        _load(job, package, args)
    job.say(Phase.PROBING)
    _probe(job)
    job.commit()
    module = job.server_target / package.module_file
    job.node.include.remember(job.server_target.parent, module, args)
    return has_to_load


def refuse_foreign(job: Job, modules: Iterable[LoadedModule]) -> None:
    """Raises: `Failure` (module_not_ours) when somebody else loaded a module of that name."""
    for loaded in modules:
        if loaded.name == job.command.module_name and not job.node.folder.is_ours(loaded.path):
            raise Failure(
                Reason.MODULE_NOT_OURS,
                f"The server has loaded {loaded.name} {loaded.version} from {loaded.path or 'its own program'}, "
                "which Modfleet did not install: unload it and remove it from the server's configuration first.",
            )


def unload(session: Session, loaded: LoadedModule) -> None:
    """The module is no longer in the server. Raises: `Failure` (unload_refused, module_command_disabled)."""
    try:
        session.unload(loaded.name)
    except RefusedError as error:
        if _is_disabled(error):
            raise _disabled(error) from error
        raise Failure(
            Reason.UNLOAD_REFUSED,
            f"The server refuses to unload {loaded.name} {loaded.version} ({error}). A module that exports data types "
            "or is in use leaves only with a restart of the server.",
        ) from error


@contextmanager
def told_as_crash(job: Job) -> Iterator[None]:
    """A connection that breaks in here is a crash that the module caused, and silence is time that ran out."""
    name = f"{job.command.module_name} {job.command.version}"
    try:
        yield
    except ServerLostError as error:
        raise Failure(Reason.SERVER_CRASHED, f"The server went away over {name}: see the server's log.") from error
    except ServerSilentError as error:
        raise Failure(Reason.NODE_DEADLINE, f"The server is still busy with {name}: {error.message}") from error


def _arguments(job: Job) -> list[str]:
    try:
        return shlex.split(job.command.command_line_args)
    except ValueError as error:
        raise Failure(Reason.LOAD_FAILED, f"The module's command_line_args cannot be split: {error}.") from error


def _make_room(job: Job) -> bool:
    """Whether the version has to be loaded: no other one of the module is, and no former content of this one."""
    seconds = job.deadline.step("Unloading", UNLOAD_SECONDS).remaining()
    with job.node.server.session(seconds) as session:
        facts = observe(session)
        refuse_foreign(job, facts.modules)
        ours = [each for each in facts.modules if each.name == job.command.module_name]
        if any(job.is_current(each, facts.run_id) for each in ours):
            return False
        for loaded in ours:
            with told_as_crash(job):
                unload(session, loaded)
    job.node.folder.clear_replaced(job.command.module_name, job.command.version)
    return True


def _load(job: Job, package: Package, args: list[str]) -> None:
    # A truncated .so kills the server at MODULE LOAD (SIGBUS), so it is read once more.
    expected = next(member.sha256 for member in package.members if member.path == package.module_file)
    if file_digest(job.target / package.module_file) != expected:
        raise Failure(Reason.CHECKSUM_MISMATCH, f"`{package.module_file}` changed on the node's disk: check the disk.")
    seconds = job.deadline.step("Loading", LOAD_SECONDS).remaining()
    with job.node.server.session(seconds) as session, told_as_crash(job):
        try:
            session.load(str(job.server_target / package.module_file), args)
        except RefusedError as error:
            raise (_disabled(error) if _is_disabled(error) else _not_loaded(job, error)) from error


def _probe(job: Job) -> None:
    command = job.command
    seconds = job.deadline.step("Probing", PROBE_SECONDS).remaining()
    try:
        with job.node.server.session(seconds) as session, told_as_crash(job):
            loaded = [each for each in session.modules() if job.is_at_target(each)]
            missing = session.missing(command.commands)
            session.ping()
    except RefusedError as error:
        raise Failure(Reason.PROBE_FAILED, f"The server refuses the probe: {error}.") from error
    if [(each.name, each.version) for each in loaded] != [(command.module_name, command.version)]:
        found = ", ".join(f"{each.name} {each.version}" for each in loaded) or "nothing"
        raise Failure(
            Reason.PROBE_FAILED,
            f"The server lists {found} instead of {command.module_name} {command.version}: "
            "name and version in module.json must be those that the module registers.",
        )
    if missing:
        raise Failure(Reason.PROBE_FAILED, f"The module was loaded but does not answer to {', '.join(missing)}.")


def _is_disabled(error: RefusedError) -> bool:
    return "command not allowed" in str(error)


def _disabled(error: RefusedError) -> Failure:
    return Failure(
        Reason.MODULE_COMMAND_DISABLED,
        "The server does not allow MODULE LOAD. Put `enable-module-command local` into its configuration and restart "
        f"it (it cannot be changed while it runs). It said: {error}",
    )


def _not_loaded(job: Job, error: RefusedError) -> Failure:
    name = f"{job.command.module_name} {job.command.version}"
    return Failure(
        Reason.LOAD_FAILED, f"The server refuses to load {name}: {error} See the server's log for the cause."
    )
