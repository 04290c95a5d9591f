"""The options of a module, `<module>.*` of CONFIG GET: a swap gives each its default, so they are set again after it."""

from collections.abc import Mapping

from rollout.agent.server.session import RefusedError, Session


def read_options(session: Session, module_name: str) -> dict[str, str] | None:
    """Return the values of the module's options by name. None if the agent's user may not read them."""
    try:
        answer = session.call("CONFIG", "GET", f"{module_name}.*")
    except RefusedError:
        return None
    pairs = answer.items() if isinstance(answer, Mapping) else zip(answer[::2], answer[1::2], strict=True)
    return {str(name): str(value) for name, value in pairs}


def set_options(session: Session, module_name: str, wanted: Mapping[str, str]) -> dict[str, str]:
    """Set the options that have another value. Return those that the server refused, each with its answer."""
    present = read_options(session, module_name) or {}
    refused = {}
    for name, value in wanted.items():
        if present.get(name) == value:
            continue
        try:
            session.call("CONFIG", "SET", name, value)
        except RefusedError as error:
            refused[name] = str(error).rstrip(".")
    return refused


def may_set_options(session: Session, module_name: str) -> bool:
    """Return False if the agent's user may not call CONFIG SET. It tries an option that does not exist."""
    try:
        session.call("CONFIG", "SET", f"{module_name}.modfleet-no-such-option", "0")
    except RefusedError as error:
        return not error.lacks_permission
    return True
