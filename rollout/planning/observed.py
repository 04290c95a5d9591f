"""What is wanted, seen and under way on the nodes that a plan is about. Each module is read once, however many ask."""

from collections.abc import Collection, Mapping

from rollout.messages import Action, Activation
from rollout.models import NodeModule, Operation
from rollout.projections.nodes import ABSENT
from rollout.selectors import live_operations, modules_on

#: How far a module is brought: what is loaded is also there as files.
REACH = {ABSENT: 0, Activation.FILES: 1, Activation.LOAD: 2}


class Observed:
    """Of some nodes, or of all of the fleet."""

    def __init__(self, nodes: Collection[str] | None) -> None:
        self.nodes = nodes
        self._modules: dict[str, Mapping[str, list[NodeModule]]] = {}
        self._live: dict[str, Mapping[str, Operation]] = {}

    def versions(self, module_name: str, node: str) -> list[NodeModule]:
        """What is wanted and seen of the module on the node."""
        if module_name not in self._modules:
            self._modules[module_name] = modules_on(self.nodes, module_name)
        return self._modules[module_name].get(node, [])

    def version(self, module_name: str, version: int, node: str) -> NodeModule | None:
        return next((row for row in self.versions(module_name, node) if row.version == version), None)

    def live(self, module_name: str, node: str) -> Operation | None:
        """The one operation of the module on the node that has not ended and waits for no other."""
        if module_name not in self._live:
            self._live[module_name] = live_operations(self.nodes, module_name)
        return self._live[module_name].get(node)

    def bringing(self, module_name: str, node: str) -> str | None:
        """The rollout under way that loads the module on the node."""
        live = self.live(module_name, node)
        if live is None or live.action != Action.INSTALL or live.activation != Activation.LOAD:
            return None
        return live.rollout

    def is_to_stay_loaded(self, module_name: str, node: str) -> bool:
        """Whether some version of the module is wanted there as loaded, and is not being removed."""
        live = self.live(module_name, node)
        leaving = live.version if live is not None and live.action == Action.REMOVE else None
        rows = self.versions(module_name, node)
        return any(row.desired == Activation.LOAD and row.version != leaving for row in rows)

    def reach(self, module_name: str, node: str, *, without: int | None = None) -> int:
        """How far the module is wanted there, one version of it aside."""
        rows = self.versions(module_name, node)
        return max((REACH[row.desired] for row in rows if row.version != without), default=0)
