"""Queries for nodes that differ from their desired state. Each is one query, however many nodes and modules there are."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet, Subquery

from modules_app.operating_systems import fitting_platforms
from rollout.domain.node.state import NodePhase
from rollout.domain.rollout.events import Origin
from rollout.messages import Action, Activation
from rollout.models import Liveness, Node, NodeModule, Operation, Placement, Rollout
from rollout.projections.node_modules import ModuleState
from rollout.queries.operations import newer_operations


@dataclass(frozen=True, slots=True, kw_only=True)
class MissedTarget:
    """What the cluster's target asks of a node that is online, and no operation has brought there."""

    node: str
    platforms: tuple[str, ...]
    action: Action
    module_name: str
    version: int
    activation: Activation


# Each node with each target: the ORM has no such query. Each CASE is evaluated in its order: nearly always the placement
# alone decides. Rows are found by their keys, so statistics of other indexes never mislead the database.
_MISSED_TARGETS = """
    SELECT node.name, node.platform, node.operating_system, origin.action, target.module_name, origin.version,
        target.activation
    FROM rollout_clustertarget AS target CROSS JOIN rollout_rollout AS origin CROSS JOIN rollout_node AS node
    LEFT JOIN rollout_placement_state AS placement ON placement.key = node.name || ':' || target.module_name
    LEFT JOIN rollout_nodemodule AS module
        ON placement.released_position < target.position
        AND module.key = node.name || ':' || target.module_name || ':' || origin.version
    WHERE origin.uid = target.rollout AND node.phase = 'online'
    AND CASE
        WHEN placement.released_position > target.position THEN false
        WHEN target.version IS NULL THEN module.desired <> 'absent'
        ELSE COALESCE(module.desired, 'absent') NOT IN (target.activation, 'load')
        END
    AND CASE
        WHEN placement.released_position > target.position THEN false
        ELSE NOT EXISTS (
            SELECT 1 FROM rollout_operation AS operation
            WHERE operation.node = node.name AND operation.module_name = target.module_name
            AND operation.finished_at IS NULL)
        END"""


def missed_targets() -> list[MissedTarget]:
    """Return the missed targets by node and module, without those where an operation is unfinished."""
    with connection.cursor() as cursor:
        cursor.execute(_MISSED_TARGETS)
        return [
            MissedTarget(
                node=node,
                platforms=fitting_platforms(platform, operating_system),
                action=Action(action),
                module_name=module_name,
                version=version,
                activation=Activation(activation),
            )
            for node, platform, operating_system, action, module_name, version, activation in sorted(cursor.fetchall())
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferingModule:
    """A module that differs from its desired state. `is_busy`: an operation is unfinished there. `is_undone`: the newest
    operation that was released ended without success."""

    row: NodeModule
    platforms: tuple[str, ...]
    is_busy: bool
    is_undone: bool


def differing_modules() -> list[DifferingModule]:
    """Return the differing modules of nodes that are online."""
    node = Node.objects.filter(name=OuterRef("node"))
    of_place = {"node": OuterRef("node"), "module_name": OuterRef("module_name")}
    rows: QuerySet[Any] = (
        NodeModule.objects.filter(
            Exists(node.filter(phase=NodePhase.ONLINE)),
            state__in=[ModuleState.DRIFTED, ModuleState.MISSING, ModuleState.ERROR],
        )
        .annotate(
            platform=Subquery(node.values("platform")),
            operating_system=Subquery(node.values("operating_system")),
            is_busy=Exists(Operation.objects.filter(**of_place, finished_at__isnull=True)),
            is_undone=Exists(Placement.objects.filter(**of_place, undone=True)),
        )
        .order_by()  # no order: the index of an order would read all rows one by one
    )
    return [
        DifferingModule(
            row=row,
            platforms=fitting_platforms(row.platform, row.operating_system),
            is_busy=row.is_busy,
            is_undone=row.is_undone,
        )
        for row in sorted(rows, key=lambda row: (row.node, row.module_name, row.version))
    ]


def open_drifts() -> list[tuple[str, str, int]]:
    """Return node, module and version of each recorded drift that has not ended, on nodes that are online."""
    nodes = Node.objects.filter(phase=NodePhase.ONLINE).exclude(drifts=[]).order_by("name")
    return [(name, *module) for name, drifts in nodes.values_list("name", "drifts") for module in drifts]


def newest_unreleased_operations(places: Collection[tuple[str, str]]) -> list[Operation]:
    """Return the newest operation of each node and module, if it has ended and was never released."""
    found = Operation.objects.filter(_of(places), ~Exists(newer_operations()), touched=False, finished_at__isnull=False)
    return list(found.filter(fails_back_to=""))


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoneOperation:
    """The newest operation that was released for a node and module, and ended without success. `heard_at`: when the
    node's agent last started or came back."""

    row: Operation
    platforms: tuple[str, ...]
    heard_at: datetime | None


def undone_operations() -> list[UndoneOperation]:
    """Return them for nodes that are online, without those where an operation is unfinished. A second query only if there
    are any."""
    node = Node.objects.filter(name=OuterRef("node"), phase=NodePhase.ONLINE)
    undone = Placement.objects.filter(Exists(node), undone=True)
    places = set(undone.values_list("node", "module_name"))
    if not places:
        return []
    of_place = {"node": OuterRef("node"), "module_name": OuterRef("module_name")}
    unfinished = Operation.objects.filter(**of_place, finished_at__isnull=True)
    newer = newer_operations().filter(touched=True)
    rows: QuerySet[Any] = Operation.objects.filter(
        _of(places), Exists(undone.filter(**of_place)), ~Exists(unfinished), ~Exists(newer), touched=True
    ).annotate(
        platform=Subquery(node.values("platform")),
        operating_system=Subquery(node.values("operating_system")),
        came_back_at=Subquery(node.values("came_back_at")),
        hello_at=Subquery(Liveness.objects.filter(node=OuterRef("node")).values("hello_at")),
    )
    return [
        UndoneOperation(
            row=row,
            platforms=fitting_platforms(row.platform, row.operating_system),
            heard_at=max((at for at in (row.hello_at, row.came_back_at) if at is not None), default=None),
        )
        for row in rows.order_by("node", "module_name")
    ]


def reconciler_operations(
    places: Collection[tuple[str, str]], *, since: datetime
) -> dict[tuple[str, str], tuple[int, datetime]]:
    """Return how many operations of the reconciler ended on each node and module since then, and when the newest did."""
    own = Rollout.objects.filter(uid=OuterRef("rollout"), origin=Origin.RECONCILER)
    found = Operation.objects.filter(_of(places), Exists(own), finished_at__gt=since)
    counted = found.values_list("node", "module_name").annotate(count=Count("key"), newest=Max("finished_at"))
    return {(node, module_name): (count, newest) for node, module_name, count, newest in counted.order_by()}


def loaded_versions(places: Collection[tuple[str, str]]) -> set[tuple[str, str, int]]:
    """Return node, module and version of what is loaded on these nodes, by their newest inventories."""
    rows = NodeModule.objects.filter(_of(places), observed=Activation.LOAD)
    return set(rows.values_list("node", "module_name", "version"))


def _of(places: Collection[tuple[str, str]]) -> Q:
    """Over-selects: the product of the nodes and the modules."""
    return Q(node__in={node for node, _ in places}, module_name__in={name for _, name in places})
