"""Makes packages of modules, and says what is wrong with a package. Needs no control plane, no database, no Django."""

from importlib.util import find_spec

from modfleet.failure import CommandError


class PackError(CommandError):
    """No package can be made; the message is one sentence for the operator, and what to do."""


def require_extra(*modules: str) -> None:
    """Raises: `PackError` where only the agent and the command line are installed."""
    if missing := [name for name in modules if find_spec(name) is None]:
        raise PackError(
            f"`modfleet pack` needs more than the agent: install modfleet[server] (no {', '.join(missing)})."
        )
