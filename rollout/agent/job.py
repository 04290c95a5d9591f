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


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`facts` is None when the server could not be asked and the operation does not need it.

    `resumed`: an agent has begun this before and has not come to its end. `commit` is called before what cannot be
    taken back: no cancel is heeded any more, also after a crash. `say` and `deadline` heed it until then.
    """

    node: Node
    command: Command
    before: Before
    facts: ServerFacts | None
    resumed: bool
    deadline: Deadline
    say: Callable[[Phase], None]
    commit: Callable[[], None]

    @property
    def target(self) -> Path:
        return self.node.folder.path(self.command.module_name, self.command.version)

    @property
    def server_target(self) -> PurePosixPath:
        return self.node.folder.server_path(self.command.module_name, self.command.version)

    def is_at_target(self, loaded: LoadedModule) -> bool:
        """Whether the server loaded it from the folder of this job's version."""
        return loaded.path.startswith(f"{self.server_target}/")

    def is_current(self, loaded: LoadedModule, run_id: str) -> bool:
        """Likewise, and the folder still holds what was loaded."""
        return self.node.is_current(loaded, run_id, self.command.module_name, self.command.version)
