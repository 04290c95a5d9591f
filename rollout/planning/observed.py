"""What some nodes have of each module, what they shall have, and what is in progress. Each module is read once."""

from collections.abc import Collection, Mapping

from rollout.domain.node.events import ABSENT
from rollout.domain.placement.scheduling import blocking
from rollout.messages import Action, Activation
from rollout.models import NodeModule, Operation
from rollout.planning.shards import ShardFacts
from rollout.queries.modules import modules_on
from rollout.queries.operations import unfinished_on

#: How far a module is brought: a loaded module is also there as files.
REACH = {ABSENT: 0, Activation.FILES: 1, Activation.LOAD: 2}


class Observed:
    """The modules of `nodes`, or of the whole fleet if `nodes` is None. `yields`: the plan supersedes nothing. `shards`: read when they are needed."""

    def __init__(self, nodes: Collection[str] | None, *, yields: bool) -> None:
        self.nodes = nodes
        self.yields = yields
        self.shards = ShardFacts()
        self._modules: dict[str, Mapping[str, list[NodeModule]]] = {}
        self._unfinished: dict[str, Mapping[str, list[Operation]]] = {}

    def versions(self, module_name: str, node: str) -> list[NodeModule]:
        """Return the desired and observed versions of the module on the node."""
        if module_name not in self._modules:
            self._modules[module_name] = modules_on(self.nodes, module_name)
        return self._modules[module_name].get(node, [])

    def version(self, module_name: str, version: int, node: str) -> NodeModule | None:
        return next((row for row in self.versions(module_name, node) if row.version == version), None)

    def reach(self, module_name: str, node: str, *, without: int | None = None) -> int:
        """Return how far the module is desired on the node; the version `without` does not count."""
        rows = self.versions(module_name, node)
        return max((REACH[row.desired] for row in rows if row.version != without), default=0)

    def stays_loaded(self, module_name: str, node: str) -> bool:
        """Return True if a version of the module is desired as loaded, or is loaded unasked, and is not being removed."""
        live, _ = self._live_and_waiting(module_name, node)
        leaving = live.version if live is not None and live.action == Action.REMOVE else None
        return any(
            Activation.LOAD in {row.desired, row.observed if row.desired == ABSENT else ABSENT}
            and row.version != leaving
            for row in self.versions(module_name, node)
        )

    def is_coming(self, module_name: str, node: str) -> bool:
        """Return True if an operation loads the module on the node."""
        live, _ = self._live_and_waiting(module_name, node)
        return live is not None and live.action == Action.INSTALL and live.activation == Activation.LOAD

    def bringing(self, module_name: str, node: str) -> str | None:
        """Return the rollout in progress that loads the module on the node, if this plan may wait for it: a person's
        rollout never waits for one that yields."""
        live, _ = self._live_and_waiting(module_name, node)
        if live is None or (live.yields and not self.yields) or not self.is_coming(module_name, node):
            return None
        return live.rollout

    def blocking(self, module_name: str, node: str) -> Operation | None:
        """Return the operation that another one must supersede before it can start."""
        return blocking(self.yields, *self._live_and_waiting(module_name, node))

    def _live_and_waiting(self, module_name: str, node: str) -> tuple[Operation | None, Operation | None]:
        """Return the unfinished operation of the module on the node, and the one that waits for it."""
        if module_name not in self._unfinished:
            self._unfinished[module_name] = unfinished_on(self.nodes, module_name)
        found = {row.behind: row for row in self._unfinished[module_name].get(node, ())}
        return found.get(False), found.get(True)
