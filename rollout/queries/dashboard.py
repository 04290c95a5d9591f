"""What a person looks at first: which node has which module, what is under way, what waits for somebody.

However large the fleet is, each answer takes the same number of queries.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery

from rollout.domain.node.decider import NodePhase
from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES, RolloutPhase, WavePhase
from rollout.messages import Phase
from rollout.models import Node, NodeModule, Operation, Rollout
from rollout.projections.nodes import ModuleState
from rollout.queries.nodes import node_rows
from rollout.queries.rollouts import rollout_rows

#: How many modules the matrix has columns for.
MOST_MODULES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleOnNodes:
    """How many nodes have a module version in each state."""

    module_name: str
    version: int
    nodes: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.nodes.values())


def modules_on_nodes(module_name: str = "") -> list[ModuleOnNodes]:
    """By name, the newest version first; of one module, if it is named."""
    rows = NodeModule.objects.filter(module_name=module_name) if module_name else NodeModule.objects.all()
    counted = rows.exclude(node__in=_gone()).values("module_name", "version", "state").annotate(nodes=Count("key"))
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
    """How many nodes are in each phase; those that have left the fleet are not counted."""
    counted = node_rows().order_by().values("phase").annotate(nodes=Count("name"))
    return {each["phase"]: each["nodes"] for each in counted}


def unfinished() -> list[Rollout]:
    """The rollouts that have not ended, the newest first."""
    rows = rollout_rows().exclude(phase__in=FINAL_ROLLOUT_PHASES)
    return list(rows.defer("document", "state", "durations", "slowest"))


def newest_rollouts_of(module_name: str, *, limit: int) -> list[Rollout]:
    rows = rollout_rows().filter(module_name=module_name)
    return list(rows.defer("document", "state", "durations", "slowest")[:limit])


def decision_needed(row: Rollout) -> str:
    """What somebody has to decide before the rollout goes on, in words; empty if it goes on by itself."""
    match row.phase:
        case RolloutPhase.PENDING_APPROVAL:
            return "waits for an approval"
        case RolloutPhase.PAUSED:
            return row.message or "is paused"
        case _ if any(each["phase"] == WavePhase.GATED for each in row.waves):
            return "waits at a gate to be promoted"
        case _:
            return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixFilter:
    """Which nodes the matrix shows: the beginning of their names, their phase, a state that one of their modules is in,
    a module; all that is empty stands for all."""

    name: str = ""
    phase: str = ""
    state: str = ""
    module_name: str = ""


def matrix_nodes(wanted: MatrixFilter) -> QuerySet[Node]:
    """Those that are not as desired first."""
    modules = NodeModule.objects.filter(node=OuterRef("name"))
    if wanted.module_name:
        modules = modules.filter(module_name=wanted.module_name)
    rows = node_rows().filter(name__startswith=wanted.name)
    if wanted.phase:
        rows = rows.filter(phase=wanted.phase)
    if wanted.state:
        rows = rows.filter(Exists(modules.filter(state=wanted.state)))
    return rows.annotate(differs=Exists(modules.exclude(state=ModuleState.IN_SYNC))).order_by("-differs", "name")


def matrix_cells(nodes: Iterable[str], modules: Iterable[str]) -> dict[tuple[str, str], list[NodeModule]]:
    """What is wanted and seen of these modules on these nodes, by node and module."""
    found: dict[tuple[str, str], list[NodeModule]] = {}
    rows = NodeModule.objects.filter(node__in=list(nodes), module_name__in=list(modules))
    for row in rows.order_by("-version"):
        found.setdefault((row.node, row.module_name), []).append(row)
    return found


def modules_with_origin(node: str) -> list[NodeModule]:
    """What is wanted and seen on the node, with the operation that last changed it there: `since`, `by_rollout`, and
    the rollout's `by_actor`; None for what no rollout has brought."""
    involved = Q(version=OuterRef("version")) | Q(undoes=OuterRef("version"))
    operations = Operation.objects.filter(
        involved, node=OuterRef("node"), module_name=OuterRef("module_name"), phase=Phase.SUCCEEDED
    ).order_by("-finished_at")
    rows = NodeModule.objects.filter(node=node).order_by("module_name", "version")
    with_rollout = rows.annotate(
        since=Subquery(operations.values("finished_at")[:1]), by_rollout=Subquery(operations.values("rollout")[:1])
    )
    actors = Rollout.objects.filter(uid=OuterRef("by_rollout")).values("actor")
    return list(with_rollout.annotate(by_actor=Subquery(actors)))


def _gone() -> QuerySet[Node, str]:
    return Node.objects.filter(phase=NodePhase.DECOMMISSIONED).values_list("name", flat=True)
