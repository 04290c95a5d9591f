"""Answers about modules on nodes."""

from collections.abc import Collection
from typing import Any

from django.db.models import OuterRef, Q, Subquery

from artifacts_app.errors import ArtifactInUseError
from artifacts_app.selectors import dependencies_of
from eventstore import Condition, head
from modules_app.errors import ModuleInUseError
from rollout.domain.conditions import USING
from rollout.domain.node.events import ABSENT
from rollout.domain.words import some_of
from rollout.messages import Action, Activation, Phase
from rollout.models import NodeModule, Operation, Placement, Rollout
from rollout.queries.nodes import by_node, node_rows


def modules_known_on(*names: str) -> list[tuple[str, str]]:
    """Return each of these nodes with each module that was ever scheduled on it."""
    return list(Placement.objects.filter(node__in=names).order_by("key").values_list("node", "module_name"))


def modules_with_origin(node: str) -> list[Any]:
    """Return the rows of the node's modules, with the operation that last changed each: `since`, `by_rollout`, and the
    rollout's `by_actor`; None if no rollout has changed it."""
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


def local_artifacts(name: str) -> list[dict[str, Any]]:
    """Return the modules on the node's disk, as the vendor's routes list them."""
    rows = NodeModule.objects.filter(node=name).exclude(observed=ABSENT).order_by("module_name", "version")
    keys = [(row.module_name, row.version) for row in rows]
    dependencies = dependencies_of(keys)
    return [
        {"module_name": module_name, "version": version, "dependencies": dependencies[module_name, version]}
        for module_name, version in keys
    ]


def is_loaded(node_name: str, module_name: str, version: int) -> bool | None:
    """Return True if the module is loaded there, None if it is not even on disk."""
    row = NodeModule.objects.filter(node=node_name, module_name=module_name, version=version).first()
    if row is None or row.observed == ABSENT:
        return None
    return row.observed == "load"


def users_of(module_name: str, version: int) -> list[str]:
    """Return the nodes that have the module version or will get it, also from the reconciler: its operation may be
    released at any moment."""
    of_version = {"module_name": module_name, "version": version}
    waiting = Operation.objects.filter(**of_version, action=Action.INSTALL, finished_at__isnull=True)
    there = NodeModule.objects.filter(**of_version, node__in=node_rows().values("name")).exclude(
        observed=ABSENT, desired=ABSENT, rollout=""
    )
    # In this order: an operation that ends between the queries has written its row of the module before.
    coming = set(waiting.values_list("node", flat=True))
    return sorted(coming | set(there.values_list("node", flat=True)))


def refuse_if_used(module_name: str, version: int) -> Condition:
    """Return a condition that holds until a node begins to use it. Raises: `ArtifactInUseError` with some of the nodes."""
    unused = Condition(after=head(), event_types=USING)
    if users := users_of(module_name, version):
        raise ArtifactInUseError(f"{some_of(users)} have {module_name} {version} or will get it.")
    return unused


def refuse_if_loaded(module_name: str, version: int) -> Condition:
    """Return a condition that holds until a node begins to load it. Raises: `ModuleInUseError` with some of the nodes."""
    unused = Condition(after=head(), event_types=USING)
    if loaders := _loaders_of(module_name, version):
        raise ModuleInUseError(
            f"{some_of(loaders)} have loaded {module_name} {version} or will load it. "
            "Start a rollout with the action remove first."
        )
    return unused


def _loaders_of(module_name: str, version: int) -> list[str]:
    """Return the nodes that have loaded the module version or will load it, at anyone's request."""
    of_version = {"module_name": module_name, "version": version}
    waiting = Operation.objects.filter(
        **of_version, action=Action.INSTALL, activation=Activation.LOAD, finished_at__isnull=True
    )
    there = NodeModule.objects.filter(
        Q(observed=Activation.LOAD) | Q(desired=Activation.LOAD), **of_version, node__in=node_rows().values("name")
    )
    # In this order: the desired state has what an operation brings before that operation ends.
    coming = set(waiting.values_list("node", flat=True))
    return sorted(coming | set(there.values_list("node", flat=True)))


def modules_on(nodes: Collection[str] | None, module_name: str) -> dict[str, list[NodeModule]]:
    """Return the desired and observed versions of the module, by node. `nodes` None: on all of them."""
    return by_node(NodeModule.objects.filter(module_name=module_name), nodes)


def other_modules_on(nodes: Collection[str] | None, module_name: str) -> list[tuple[str, str, int, str]]:
    """Return the other modules that are desired there or coming: node, module, version and activation, sorted. Without
    those that the reconciler has only scheduled."""
    desired = NodeModule.objects.exclude(module_name=module_name).exclude(desired=ABSENT)
    coming = Operation.objects.exclude(module_name=module_name).filter(action=Action.INSTALL, finished_at__isnull=True)
    coming = coming.exclude(yields=True, phase=Phase.SCHEDULED)
    if nodes is not None:
        desired, coming = desired.filter(node__in=nodes), coming.filter(node__in=nodes)
    return sorted(
        {
            # In this order: the desired state has what an operation brings before that operation ends.
            *coming.values_list("node", "module_name", "version", "activation"),
            *desired.values_list("node", "module_name", "version", "desired"),
        }
    )
