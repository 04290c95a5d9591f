"""What is wanted, seen and under way on the nodes that a plan is about. Each module is read once, however many ask."""

from collections.abc import Collection, Mapping

from rollout.domain.placement.scheduling import blocking
from rollout.messages import Action, Activation
from rollout.models import NodeModule, Operation
from rollout.projections.node_modules import ABSENT
from rollout.queries.modules import modules_on
from rollout.queries.operations import unfinished_on

#: How far a module is brought: what is loaded is also there as files.
REACH = {ABSENT: 0, Activation.FILES: 1, Activation.LOAD: 2}


class Observed:
    """Of some nodes, or of all of the fleet. `yields`: what is planned takes the place of nothing."""

    def __init__(self, nodes: Collection[str] | None, *, yields: bool) -> None:
        self.nodes = nodes
        self._yields = yields
        self._modules: dict[str, Mapping[str, list[NodeModule]]] = {}
        self._unfinished: dict[str, Mapping[str, list[Operation]]] = {}

    def versions(self, module_name: str, node: str) -> list[NodeModule]:
        """What is wanted and seen of the module on the node."""
        if module_name not in self._modules:
            self._modules[module_name] = modules_on(self.nodes, module_name)
        return self._modules[module_name].get(node, [])

    def version(self, module_name: str, version: int, node: str) -> NodeModule | None:
        return next((row for row in self.versions(module_name, node) if row.version == version), None)

    def blocking(self, module_name: str, node: str) -> Operation | None:
        """The operation that keeps another one from being started without superseding it."""
        return blocking(self._yields, *self._live_and_waiting(module_name, node))

    def _live_and_waiting(self, module_name: str, node: str) -> tuple[Operation | None, Operation | None]:
        """Of the module on the node, the one operation that has not ended and waits for no other; the one behind it."""
        if module_name not in self._unfinished:
            self._unfinished[module_name] = unfinished_on(self.nodes, module_name)
        found = {row.behind: row for row in self._unfinished[module_name].get(node, ())}
        return found.get(False), found.get(True)

    def is_coming(self, module_name: str, node: str) -> bool:
        """Whether the module is being loaded on the node."""
        live, _ = self._live_and_waiting(module_name, node)
        return live is not None and live.action == Action.INSTALL and live.activation == Activation.LOAD

    def bringing(self, module_name: str, node: str) -> str | None:
        """The rollout under way that loads the module on the node, and that may be waited for: a person's rollout never
        waits for one that yields."""
        live, _ = self._live_and_waiting(module_name, node)
        if live is None or (live.yields and not self._yields) or not self.is_coming(module_name, node):
            return None
        return live.rollout

    @property
    def yields(self) -> bool:
        return self._yields

    def is_to_stay_loaded(self, module_name: str, node: str) -> bool:
        """Whether some version of the module is wanted there as loaded, or is loaded unasked, and is not being removed."""
        live, _ = self._live_and_waiting(module_name, node)
        leaving = live.version if live is not None and live.action == Action.REMOVE else None
        rows = self.versions(module_name, node)
        return any(
            Activation.LOAD in {row.desired, row.observed if row.desired == ABSENT else ABSENT}
            and row.version != leaving
            for row in rows
        )

    def reach(self, module_name: str, node: str, *, without: int | None = None) -> int:
        """How far the module is wanted there, one version of it aside."""
        rows = self.versions(module_name, node)
        return max((REACH[row.desired] for row in rows if row.version != without), default=0)
