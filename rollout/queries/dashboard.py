"""Answers for the console's dashboard: modules on nodes, and the matrix of nodes and modules.

Each answer takes a constant number of queries, however large the fleet is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db.models import Count, Exists, OuterRef, QuerySet

from rollout.models import Node, NodeModule
from rollout.projections.node_modules import ModuleState
from rollout.queries.nodes import count_by_phase, decommissioned_nodes, listed_nodes

#: Most columns of the matrix: one for each module.
MOST_MODULES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleOnNodes:
    """`nodes`: how many nodes have the module version in each state."""

    module_name: str
    version: int
    nodes: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.nodes.values())


def modules_on_nodes(module_name: str = "") -> list[ModuleOnNodes]:
    """Return all module versions on nodes, by name, the newest version first; or those of one module."""
    rows = NodeModule.objects.filter(module_name=module_name) if module_name else NodeModule.objects.all()
    counted = (
        rows.exclude(node__in=decommissioned_nodes())
        .values("module_name", "version", "state")
        .annotate(nodes=Count("key"))
    )
    found: dict[tuple[str, int], dict[str, int]] = {}
    for each in counted.order_by("module_name", "-version"):
        found.setdefault((each["module_name"], each["version"]), {})[each["state"]] = each["nodes"]
    return [
        ModuleOnNodes(
            module_name=name, version=version, nodes={state: states[state] for state in ModuleState if state in states}
        )
        for (name, version), states in found.items()
    ]


def nodes_by_phase() -> dict[str, int]:
    """Return how many nodes of the fleet are in each phase. Decommissioned nodes are not counted."""
    return count_by_phase(listed_nodes())


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixFilter:
    """Which nodes the matrix shows. `name`: how their names begin. `state`: of one of their modules. Empty: all."""

    name: str = ""
    phase: str = ""
    state: str = ""
    module_name: str = ""


def matrix_nodes(shown: MatrixFilter) -> QuerySet[Node]:
    """Return the nodes to show; nodes that differ from their desired state come first."""
    modules = NodeModule.objects.filter(node=OuterRef("name"))
    if shown.module_name:
        modules = modules.filter(module_name=shown.module_name)
    rows = listed_nodes().filter(name__startswith=shown.name)
    if shown.phase:
        rows = rows.filter(phase=shown.phase)
    if shown.state:
        rows = rows.filter(Exists(modules.filter(state=shown.state)))
    return rows.annotate(differs=Exists(modules.exclude(state=ModuleState.IN_SYNC))).order_by("-differs", "name")


def matrix_cells(nodes: Iterable[str], modules: Iterable[str]) -> dict[tuple[str, str], list[NodeModule]]:
    """Return the desired and observed state of these modules on these nodes, by node and module."""
    found: dict[tuple[str, str], list[NodeModule]] = {}
    rows = NodeModule.objects.filter(node__in=list(nodes), module_name__in=list(modules))
    for row in rows.order_by("-version"):
        found.setdefault((row.node, row.module_name), []).append(row)
    return found
