"""Make packages of modules, and check packages. This needs no control plane, no database and no Django."""

from importlib.util import find_spec

from modfleet.failure import CommandError


class PackError(CommandError):
    """No package can be made. The message says why and what to do."""


def require_extra(*modules: str) -> None:
    """Check that the modules are installed. Raises: `PackError`."""
    if missing := [name for name in modules if find_spec(name) is None]:
        raise PackError(f"`modfleet pack` needs modfleet[server]. Install it (missing: {', '.join(missing)}).")
