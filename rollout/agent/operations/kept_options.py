"""Stops an upgrade before the swap if it would lose options of the module, and no person has accepted that."""

from collections.abc import Collection

from rollout.agent.failure import Failure
from rollout.agent.operations.operation import Operation
from rollout.agent.scratch.successes import Successes
from rollout.agent.server.options import may_set_options
from rollout.agent.server.session import LoadedModule, Session
from rollout.messages import Reason

#: How to give the agent what it needs.
RIGHTS = "`modfleet agent doctor --print-acl load --also options` prints the rights that the agent's user needs."
GO_ON = "Retry to go on without them."


def refuse_to_lose_options(operation: Operation, session: Session, former: LoadedModule) -> None:
    """Raises: `Failure` (options_lost) if options of `former` would be lost, or if this is not known."""
    command, options = operation.command, operation.before.options
    if not command.keep_options and command.accepted_losses is None:
        return
    if options is None:
        if command.keep_options:
            _refuse_unknown(operation, former)
        return
    if not options:
        return
    name, new = f"{command.module_name} {command.version}", _options_of_target(operation)
    if new is None:
        raise Failure(
            Reason.OPTIONS_LOST,
            f"It is not known which options {name} has, because no scratch server has loaded it. {_values(options)} may be "
            f"lost. {GO_ON}",
        )
    accepted = {each.lower() for each in command.accepted_losses or ()}
    if lost := {each: value for each, value in options.items() if each.lower() not in {*new, *accepted}}:
        raise Failure(
            Reason.OPTIONS_LOST, f"{name} does not have these options of the server: {_values(lost)}. {GO_ON}"
        )
    if command.keep_options and not may_set_options(session, command.module_name):
        raise Failure(
            Reason.OPTIONS_LOST,
            f"The agent's user may not call CONFIG SET, so {_values(options)} would be lost. {RIGHTS} {GO_ON}",
        )


def _refuse_unknown(operation: Operation, former: LoadedModule) -> None:
    """Refuse unless scratch servers have seen that `former` has no options."""
    node = operation.node
    if former.version == operation.command.version:  # its files are replaced
        content = operation.before.content_sha256
    else:
        content = node.digests.content(node.module_store.path(former.name, former.version))
    known = _options_of(operation, content)
    if known is not None and not known:
        return
    raise Failure(
        Reason.OPTIONS_LOST,
        f"The agent's user may not call CONFIG GET, so the options of {former.name} {former.version} are not known, and an "
        f"upgrade would lose them. {RIGHTS} {GO_ON}",
    )


def _options_of_target(operation: Operation) -> Collection[str] | None:
    """Return the options of the new build, in small letters. None: not known."""
    known = _options_of(operation, operation.node.digests.content(operation.target))
    if known is not None or operation.command.options is None:
        return known
    return {each.lower() for each in operation.command.options}


def _options_of(operation: Operation, content: str) -> Collection[str] | None:
    """Return the options that scratch servers of this node have seen, in small letters. None: not known."""
    loads = Successes(operation.node.settings.journal_dir).of_content(content) if content else []
    return {name.lower() for each in loads for name in each.options} if loads else None


def _values(options: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(options.items()))
