"""Loads a module into a scratch server before it enters the live one."""

import logging
import shlex
from collections.abc import Iterable
from dataclasses import replace

from rollout.agent.failure import Failure
from rollout.agent.inspection.host import PLATFORM
from rollout.agent.module_files.module_store import ModuleStore
from rollout.agent.operations.operation import Operation
from rollout.agent.scratch.live import live_server
from rollout.agent.scratch.load import ScratchLoadError, Trial, load_in_scratch
from rollout.agent.scratch.server import UnavailableError
from rollout.agent.scratch.successes import Successes
from rollout.agent.scratch.types import lack_type
from rollout.agent.server.facts import ServerFacts
from rollout.agent.server.session import LoadedModule
from rollout.agent.server.texts import storable
from rollout.messages import Package, Reason, ScratchLoad, scratch_key

log = logging.getLogger(__name__)

#: Limit of a problem in a report, characters.
LONGEST_PROBLEM = 1000


def try_in_scratch(
    operation: Operation, package: Package, module: LoadedModule, facts: ServerFacts
) -> ScratchLoad | None:
    """Load the module into a scratch server, if it has not loaded on this node before. Return what was learned.

    Raises: `Failure` (scratch_load_failed, scratch_hung, scratch_unavailable, or the cause of a refusal). The live server
    was not changed then.
    """
    settings = operation.node.settings
    if settings.scratch == "off":
        return None
    key = _key(operation, package, module, facts)
    successes = Successes(settings.journal_dir)
    if known := successes.find(key):
        return known
    seconds = operation.deadline.step("Loading in a scratch server", settings.scratch_seconds).remaining()
    try:
        with operation.node.server.session() as session:
            live = live_server(settings, session.info("server"))
        done = load_in_scratch(live, _trial(operation, package, module, facts, key), seconds=seconds)
    except UnavailableError as error:
        keys, sources = operation.command.scratch_done, operation.command.scratch_sources
        if key in keys:  # the control plane before this version sends no sources
            return ScratchLoad(key=key, source=dict(zip(keys, sources, strict=False)).get(key, "another node"))
        return _given_up(operation, key, _unavailable(error))
    except ScratchLoadError as failure:
        operation.deadline.remaining()
        if settings.scratch == "require":
            operation.server_log.quote(failure.lines)
        return _given_up(operation, key, failure)
    successes.add(package.content_sha256, done)
    return done


def is_type_of_another(operation: Operation, loaded: LoadedModule, name: str) -> bool:
    """Return True if a scratch server has shown that the loaded module does not have the data type `name`."""
    settings, facts = operation.node.settings, operation.facts
    if settings.scratch == "off" or facts is None or not operation.is_current(loaded, facts.run_id):
        return False
    seconds = operation.deadline.step("Asking a scratch server", settings.scratch_seconds).remaining()
    try:
        with operation.node.server.session() as session:
            live = live_server(settings, session.info("server"))
    except UnavailableError:
        return False
    seen = as_agent_sees(operation.node.module_store, loaded)
    return lack_type(live, [seen], name, seconds=seconds) is True


def _given_up(operation: Operation, key: str, failure: Failure) -> ScratchLoad:
    """Return the problem if the setting says only to warn. Raises: `failure`."""
    if operation.node.settings.scratch == "require":
        raise failure
    log.warning("%s", storable(failure.message))
    return ScratchLoad(key=key, problem=storable(failure.message)[:LONGEST_PROBLEM])


def _unavailable(error: UnavailableError) -> Failure:
    return Failure(
        Reason.SCRATCH_UNAVAILABLE,
        f"No scratch server can run on this node, and the module has loaded in none elsewhere: {error} With "
        "MODFLEET_SCRATCH=warn the agent loads the module without a trial.",
    )


def _key(operation: Operation, package: Package, module: LoadedModule, facts: ServerFacts) -> str:
    return scratch_key(
        content_sha256=package.content_sha256,
        server=f"{facts.server} {facts.version}",
        args=(*module.args, "", *scratch_args(operation, module)),
        platform=f"{PLATFORM}/{operation.node.operating_system}",
    )


def _trial(operation: Operation, package: Package, module: LoadedModule, facts: ServerFacts, key: str) -> Trial:
    return Trial(
        key=key,
        module=replace(module, path=str(operation.target / package.module_file), args=scratch_args(operation, module)),
        others=tuple(other_modules(operation, facts.modules)),
        commands=operation.command.commands,
    )


def scratch_args(operation: Operation, module: LoadedModule) -> tuple[str, ...]:
    """Return the arguments of the module in a scratch server. Raises: `Failure`."""
    text = operation.command.scratch_args
    try:
        return module.args if text is None else tuple(shlex.split(text))
    except ValueError as error:
        raise Failure(Reason.LOAD_FAILED, f"The module's scratch_args cannot be split: {error}.") from error


def other_modules(operation: Operation, modules: Iterable[LoadedModule]) -> Iterable[LoadedModule]:
    """Yield the server's other modules, as the agent sees their files: first those that the command orders."""
    order = operation.command.load_order
    ranks = {name: rank for rank, name in enumerate(order)}
    for each in sorted(modules, key=lambda each: ranks.get(each.name, len(order))):
        if each.name == operation.command.module_name or not each.path.startswith("/"):
            continue
        yield as_agent_sees(operation.node.module_store, each)


def as_agent_sees(store: ModuleStore, module: LoadedModule) -> LoadedModule:
    """Return the same with the path at which the agent finds its file."""
    if not store.is_ours(module.path):
        return module
    return replace(module, path=str(store.on_agent(module.path)))
