"""One attempt of one operation on a node: what its steps share, and how it can end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rollout.agent.deadline import Deadline
from rollout.agent.journal import Before
from rollout.agent.node import Node, ServerFacts
from rollout.agent.server import LoadedModule
from rollout.messages import Command, Phase, Reason

#: Longest that each step may take, in seconds; together they stay below `LONGEST_OPERATION`.
FETCH_SECONDS = 1200.0
VERIFY_SECONDS = 600.0
LOAD_SECONDS = 300.0
PROBE_SECONDS = 10.0
UNLOAD_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an operation ended well."""

    phase: Phase = Phase.SUCCEEDED
    reason: Reason | None = None
    message: str = ""
    swap_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`facts` is None when the server could not be asked and the operation does not need it.

    `resumed`: an agent has begun this before and has not come to its end. `commit` is called before what cannot be
    taken back: no cancel is heeded any more, also after a crash. `say` and `deadline` heed it until then. `pause` waits
    so many seconds, or until a cancel comes.
    """

    node: Node
    command: Command
    before: Before
    facts: ServerFacts | None
    resumed: bool
    deadline: Deadline
    say: Callable[[Phase], None]
    commit: Callable[[], None]
    pause: Callable[[float], None]

    @property
    def target(self) -> Path:
        return self.node.folder.path(self.command.module_name, self.command.version)

    @property
    def server_target(self) -> PurePosixPath:
        return self.node.folder.server_path(self.command.module_name, self.command.version)

    def is_at_target(self, loaded: LoadedModule) -> bool:
        """Whether the server loaded it from the folder of this operation's version."""
        return loaded.path.startswith(f"{self.server_target}/")

    def is_new(self, loaded: LoadedModule, run_id: str) -> bool:
        """Whether the operation has brought what the server has loaded."""
        former = self.before.loaded
        if not self.is_at_target(loaded):
            return False
        if former is None or not self.is_at_target(former):
            return True
        if self.former_target is None:
            return loaded.args != former.args
        # A crash may have come between the swap and the note that the server's memory holds the new files.
        return self.resumed or self.is_current(loaded, run_id)

    @property
    def former_target(self) -> PurePosixPath | None:
        """Where the files are that the operation has replaced."""
        return self.node.folder.former(self.command.module_name, self.command.version)

    def path_now(self, loaded: LoadedModule) -> str:
        """Where the files are now that the server loaded before the operation."""
        former = self.former_target
        if former is None or not self.is_at_target(loaded):
            return loaded.path
        return str(former / PurePosixPath(loaded.path).relative_to(self.server_target))

    def has_line(self, module: LoadedModule) -> bool:
        """Whether a start of the server loads exactly that."""
        return self.node.include.has(PurePosixPath(module.path), module.args)

    def write_line(self, module: LoadedModule) -> None:
        """A start of the server loads `module`, after the modules that it needs."""
        folder = self.server_target.parent
        order = [folder.parent / name for name in self.command.load_order]
        self.node.include.remember(folder, PurePosixPath(module.path), module.args, order)

    def is_current(self, loaded: LoadedModule, run_id: str) -> bool:
        """Likewise, and the folder still holds what was loaded."""
        return self.node.is_current(loaded, run_id, self.command.module_name, self.command.version)
