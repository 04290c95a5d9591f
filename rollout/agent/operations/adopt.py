"""Adopts a module that the server has loaded from a foreign path: the next start loads the same bytes from the module store.

The server loads and unloads nothing. docs/adr/0018-adopted-modules.md says why.
"""

from dataclasses import replace

from rollout.agent.failure import Failure, as_failure
from rollout.agent.inspection.loaded_file import read_loaded_file
from rollout.agent.module_files.include import load_line
from rollout.agent.module_files.unpack import check_manifest
from rollout.agent.node.take_over import TakeOver, take_over
from rollout.agent.operations.external import wait_for_line
from rollout.agent.operations.install import put_in_place
from rollout.agent.operations.last_check import refuse_to_change
from rollout.agent.operations.operation import UNLOAD_SECONDS, Operation, Outcome
from rollout.agent.operations.undo import undone
from rollout.agent.server.adoptions import Adopted
from rollout.agent.server.causes import refusal
from rollout.agent.server.facts import ServerFacts
from rollout.agent.server.observation import is_bundled
from rollout.agent.server.session import LoadedModule, RefusedError
from rollout.messages import Package, Phase, Reason


def adopt(operation: Operation, package: Package) -> Outcome:
    """Put the package's files into the module store, and write our line in place of the foreign one, or wait until a person
    has written it.

    Raises: `Failure` (nothing_to_adopt, module_not_ours, persistence_conflict, ...). Then the node is as it was before.
    """
    try:
        operation.deadline.remaining()
        check_manifest(package)
        if _is_adopted(operation, package):
            return Outcome(phase=Phase.SKIPPED, reason=Reason.ALREADY_INSTALLED, message="It is adopted already.")
        module, run_id, found = _adoptable(operation, package)
        put_in_place(operation, package)
        is_noted = _take_over(operation, package, module, run_id, found)
    except RefusedError as error:
        raise undone(operation, refusal(error)) from error
    except (Failure, OSError) as error:
        raise undone(operation, as_failure(error)) from error
    operation.node.settle(operation.command.module_name, operation.command.version)
    if not is_noted:
        return Outcome(message="Adopted. The server was restarted, and has loaded it from the module store.")
    return Outcome(
        message=f"Adopted. The server runs it from {module.path} until its next start, which loads it from the module store."
    )


def _is_adopted(operation: Operation, package: Package) -> bool:
    facts = operation.facts
    return (
        facts is not None
        and any(operation.is_current(each, facts.run_id) for each in facts.modules)
        and operation.node.digests.content_now(operation.target) == package.content_sha256
    )


def _adoptable(operation: Operation, package: Package) -> tuple[LoadedModule, str, TakeOver]:
    """Return the loaded module, the server process that runs it, and the line that loads it.

    Raises: `Failure` if it must not be adopted.
    """
    command, node = operation.command, operation.node
    seconds = operation.deadline.step("Reading the loaded module", UNLOAD_SECONDS).remaining()
    with node.server.session(seconds) as session:
        refuse_to_change(node, command, session)
        info = session.info("server")
        module = next((each for each in session.modules() if each.name == command.module_name), None)
    if module is None:
        raise Failure(Reason.NOTHING_TO_ADOPT, f"The server has not loaded {command.module_name}.")
    name = f"{module.name} {module.version}"
    if node.module_store.is_ours(module.path):
        raise Failure(Reason.NOTHING_TO_ADOPT, f"{name} is Modfleet's already.")
    if is_bundled(module.path):
        raise Failure(Reason.MODULE_NOT_OURS, f"{name} cannot be adopted: it comes with the server.")
    if module.version != command.version:
        raise Failure(Reason.MODULE_NOT_OURS, f"The server has loaded {name}, and not version {command.version}.")
    node.persistence.reader.read(info)
    reader = node.persistence.reader
    file = read_loaded_file(module.path, reader.pid, reader.view, reader.started)
    if file.problem:
        raise Failure(Reason.MODULE_NOT_OURS, f"{name} cannot be adopted: {file.problem}")
    if file.sha256 != next(each.sha256 for each in package.members if each.path == package.module_file):
        raise Failure(Reason.MODULE_NOT_OURS, f"{name} cannot be adopted: {module.path} is not the artifact's file.")
    found = take_over(node.persistence, node.persistence.read_as_written(), module.name, module.path)
    if found.obstacle:
        raise Failure(Reason.PERSISTENCE_CONFLICT, f"{name} cannot be adopted: {found.obstacle}")
    return module, info.get("run_id", ""), found


def _take_over(operation: Operation, package: Package, module: LoadedModule, run_id: str, found: TakeOver) -> bool:
    """Write our line, and then note that the server still runs the module from its foreign path.

    An agent that dies in between leaves a line that loads the same bytes. The repeated command finds it, and adds the note.
    Return False without a note if the server was restarted, and runs the module from the module store.
    """
    node, target = operation.node, str(operation.server_target / package.module_file)
    if found.by_person and _is_loaded_by(operation, module, run_id, found, target):
        return False
    with node.server.session(operation.deadline.remaining()) as session:
        refuse_to_change(node, operation.command, session)
        if session.info("server").get("run_id") != run_id:
            raise _restarted()
    operation.commit()
    if not node.persistence.names(operation.server_target):
        node.persistence.adopt(found.line, replace(module, path=target))
    node.adoptions.add(
        Adopted(name=module.name, version=module.version, path=module.path, target=target, run_id=run_id)
    )
    return True


def _is_loaded_by(operation: Operation, module: LoadedModule, run_id: str, found: TakeOver, target: str) -> bool:
    """Wait until a person has written our line. Return True if the server was restarted, and runs it from `target`.

    Raises: `Failure` (external_configuration) at the deadline of the operation. The files stay: the line may be on its way.
    """
    args = found.line.args if found.line else module.args

    def is_done(facts: ServerFacts) -> bool:
        start = operation.node.persistence.read_as_written()
        lines = [(each.path, each.args) for each in start.lines]
        is_written = not start.problem and (target, args) in lines and all(path != module.path for path, _ in lines)
        return facts.run_id != run_id or is_written

    operation.report(Phase.LOADING)
    facts = wait_for_line(operation, is_done, _needed(found, load_line(target, args)))
    if facts.run_id == run_id:
        return False
    if not any(operation.is_current(each, facts.run_id) for each in facts.modules):
        raise _restarted()
    return True


def _needed(found: TakeOver, line: str) -> str:
    """Return what a person must do, one or two sentences."""
    if found.line is None:
        return f"Add the line `{line}` to the server's configuration. The server needs no restart."
    if not found.line.file:
        return f"Load the module on the server's command line as in the line `{line}`, and restart the server."
    former = load_line(found.line.path, found.line.args)
    return f"Replace the line `{former}` ({found.place}) by `{line}`. The server needs no restart."


def _restarted() -> Failure:
    return Failure(Reason.SERVER_UNREACHABLE, "The server was restarted before its module was adopted. Retry.")
