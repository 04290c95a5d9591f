"""CONFIG REWRITE: the server writes its main configuration file, with a line for each module that it has loaded.

It writes arguments without quotes, removes an `enable-module-command` line that waits for a restart, and writes the modules in
the order of MODULE LIST, which is another one in each process. Seen on Redis 7.0.15 and Valkey 9.1.2. So each of these is
checked first: until the server has written the file, its next start is as it was.
"""

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

import decoding
from durable import write_file
from rollout.agent.failure import Failure
from rollout.agent.module_files.include import needs_quotes
from rollout.agent.server.causes import is_refusal_of_all, refusal
from rollout.agent.server.session import LoadedModule, RefusedError, Server, Session
from rollout.messages import Reason

#: No module has this name. A server looks at `enable-module-command` before it looks for the module.
NO_MODULE = "modfleet:none"
#: The longest time for CONFIG REWRITE, seconds.
REWRITE_SECONDS = 10.0


class ConfigRewrite:
    """CONFIG REWRITE of one server. `directory`: of the journal. It keeps the newest order that the control plane has named."""

    def __init__(self, server: Server, directory: Path) -> None:
        self._server = server
        self._file = directory / ".load_order.json"
        self.order = self._read()

    def keep_order(self, order: Sequence[str]) -> None:
        """Keep the names of the modules that need or are needed, each after those that it needs."""
        if tuple(order) != self.order:
            self.order = tuple(order)
            write_file(self._file, msgspec.json.encode(self.order), mode=0o600)

    def refuse_related(self, module_name: str) -> None:
        """Raises: `Failure` if the module and another loaded one must be loaded in an order."""
        if module_name not in self.order:
            return
        with self._server.session() as session:
            related = {module_name, *(each.name for each in session.modules())} & set(self.order)
        if len(related) > 1:
            raise Failure(
                Reason.PERSISTENCE_FAILED,
                f"CONFIG REWRITE writes modules in any order, but {_names(self.order, related)} must be loaded in this order: "
                "the next start could fail. If no Sentinel watches the server, set MODFLEET_PERSISTENCE=include.",
            )

    def run(self) -> tuple[LoadedModule, ...]:
        """Let the server write its configuration file. Return the modules of which it has written a line.

        Raises: `Failure`. Then the file is as it was.
        """
        try:
            with self._server.session(REWRITE_SECONDS) as session:
                _refuse_if_modules_are_disabled(session)
                modules = session.modules()
                self._check(modules)
                session.call("CONFIG", "REWRITE")
                return modules
        except RefusedError as error:
            if os.strerror(errno.ENOSPC) in str(error):
                raise Failure(
                    Reason.DISK_FULL,
                    f"The server refuses CONFIG REWRITE: {str(error).rstrip('.')}. Free some space for its configuration file, "
                    "then retry.",
                ) from error
            what = (
                "Allow it to the agent's user with `+config|rewrite`"
                if error.lacks_permission
                else "Start the server with a configuration file that its user may write, as the directory of the file"
            )
            raise Failure(
                Reason.PERSISTENCE_FAILED, f"The server refuses CONFIG REWRITE: {str(error).rstrip('.')}. {what}."
            ) from error

    def _check(self, modules: Sequence[LoadedModule]) -> None:
        for each in modules:
            refuse_quotes(each.name, each.args)
        names = [each.name for each in modules if each.name in self.order]
        if names != sorted(names, key=self.order.index):
            raise Failure(
                Reason.PERSISTENCE_FAILED,
                f"CONFIG REWRITE would write the modules in the order {', '.join(names)}, and the next start would fail: they "
                f"must be loaded in the order {_names(self.order, names)}. A restart of the server changes the order of "
                "CONFIG REWRITE. Restart it, then retry.",
            )

    def _read(self) -> tuple[str, ...]:
        try:
            return decoding.decode(self._file.read_bytes(), tuple[str, ...])
        except (OSError, msgspec.MsgspecError):
            return ()


def refuse_quotes(module_name: str, args: Iterable[str]) -> None:
    """Raises: `Failure` if CONFIG REWRITE would write other arguments of the module."""
    if any(needs_quotes(each) for each in args):
        raise Failure(
            Reason.PERSISTENCE_FAILED,
            f"CONFIG REWRITE writes arguments without quotes: the next start of the server would read other arguments of "
            f"{module_name}, or fail. Give {module_name} arguments without spaces, quotes and backslashes. If no Sentinel "
            "watches the server, MODFLEET_PERSISTENCE=include is another way.",
        )


def _refuse_if_modules_are_disabled(session: Session) -> None:
    """Raises: `Failure` (module_command_disabled, permission_denied) if the server would refuse to load a module: CONFIG
    REWRITE would remove the line `enable-module-command` that waits for a restart."""
    try:
        session.unload(NO_MODULE)
    except RefusedError as error:
        if is_refusal_of_all(error):
            raise refusal(error) from error


def _names(order: Sequence[str], names: Iterable[str]) -> str:
    return ", ".join(sorted(names, key=order.index))
