"""One attempt of one operation on a node: what its steps share, and how it can succeed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rollout.agent.deadline import Deadline
from rollout.agent.node.journal import Before
from rollout.agent.node.node import Node
from rollout.agent.operations.watch import Watch
from rollout.agent.scratch.successes import Successes
from rollout.agent.server.facts import ServerFacts
from rollout.agent.server.server_log import ServerLog
from rollout.agent.server.session import LoadedModule
from rollout.messages import Command, Phase, Reason, Restart, ScratchLoad, ServerHealth, WayBack, any_known

#: The longest time of each step, seconds. Together they stay below `LONGEST_OPERATION`.
FETCH_SECONDS = 1200.0
VERIFY_SECONDS = 600.0
LOAD_SECONDS = 300.0
UNLOAD_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an operation ended."""

    phase: Phase = Phase.SUCCEEDED
    reason: Reason | None = None
    message: str = ""
    swap_seconds: float | None = None
    server_log: tuple[str, ...] = ()
    health: ServerHealth | None = None
    scratch: ScratchLoad | None = None
    restart: Restart | None = None
    way_back: WayBack | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`facts` is None if the server could not be asked and the operation does not need it.

    `resumed`: an agent has started this operation before and not finished it. `commit` is called before a step that cannot
    be undone: from then on the operation is not canceled any more, also after a crash. Until then `report` and `deadline`
    raise when it is canceled. `server_log` is marked before the first command that changes the server. `pause` waits so many seconds, or until a cancel arrives.
    `note` reports that something has happened in the phase that was reported last; any thread may call it.
    """

    node: Node
    command: Command
    before: Before
    facts: ServerFacts | None
    resumed: bool
    deadline: Deadline
    server_log: ServerLog
    watch: Watch
    report: Callable[[Phase], None]
    note: Callable[[Reason, str], None]
    commit: Callable[[], None]
    pause: Callable[[float], None]

    @property
    def target(self) -> Path:
        return self.node.module_store.path(self.command.module_name, self.command.version)

    @property
    def server_target(self) -> PurePosixPath:
        return self.node.module_store.server_path(self.command.module_name, self.command.version)

    @property
    def has_types(self) -> bool | None:
        """True if the version exports data types, None if this is not known: its data may need it."""
        return self._known(self.command.has_types or None, self.command.has_types_from, "has_types")

    @property
    def aux_data(self) -> bool | None:
        """True if the version is known to write auxiliary data, None if nothing is known."""
        return self._known(self.command.aux_data, self.command.aux_data_from, "aux_data")

    def _known(self, said: bool | None, by: str, name: str) -> bool | None:
        """Return what is known: what scratch servers of this node have shown comes before the word of other nodes (`by`)."""
        own = any_known(getattr(each, name) for each in self._scratch_loads())
        return own if by and own is not None else any_known((said, own))

    def _scratch_loads(self) -> list[ScratchLoad]:
        """Return what scratch servers of this node have shown about the files in `target`."""
        content = self.node.digests.content(self.target)
        return Successes(self.node.settings.journal_dir).of_content(content) if content else []

    def is_at_target(self, loaded: LoadedModule) -> bool:
        """Return True if the server loaded it from the directory of this operation's version."""
        return loaded.path.startswith(f"{self.server_target}/")

    def is_new(self, loaded: LoadedModule, run_id: str) -> bool:
        """Return True if the server loaded it because of this operation."""
        former = self.before.loaded
        if not self.is_at_target(loaded):
            return False
        if former is None or not self.is_at_target(former):
            return True
        if self.former_target is None:
            return loaded.args != former.args
        # The agent may have crashed between the swap and the note that the server has the new files in memory.
        return self.resumed or self.is_current(loaded, run_id)

    @property
    def former_target(self) -> PurePosixPath | None:
        """The directory of the files that the operation has replaced, if it has."""
        return self.node.module_store.former(self.command.module_name, self.command.version)

    def path_now(self, loaded: LoadedModule) -> str:
        """Return where the files of a module that the server loaded before the operation are now."""
        former = self.former_target
        if former is None or not self.is_at_target(loaded):
            return loaded.path
        return str(former / PurePosixPath(loaded.path).relative_to(self.server_target))

    @property
    def load_order(self) -> list[PurePosixPath]:
        """The directories of the modules that need or are needed, each after those that it needs."""
        return [self.server_target.parent.parent / name for name in self.command.load_order]

    def has_line(self, module: LoadedModule) -> bool:
        """Return True if a start of the server loads exactly this."""
        return self.node.persistence.has(PurePosixPath(module.path), module.args)

    def write_line(self, module: LoadedModule) -> None:
        """Make a start of the server load `module`, after the modules that it needs."""
        self.node.persistence.remember(self.server_target.parent, module, self.load_order)

    def is_current(self, loaded: LoadedModule, run_id: str) -> bool:
        """Return True if the server has the files of the version's directory in memory."""
        return self.node.is_current(loaded, run_id, self.command.module_name, self.command.version)
