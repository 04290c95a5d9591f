"""Answers about modules on nodes."""

from collections.abc import Collection, Sequence
from typing import Any

from django.db.models import Q

from artifacts_app.errors import ArtifactInUseError
from artifacts_app.selectors import dependencies_of
from eventstore import Condition, head
from modules_app.errors import ModuleInUseError
from rollout.domain.conditions import USING
from rollout.messages import (
    Action,
    Activation,
    Phase,
)
from rollout.models import NodeModule, Operation, Placement
from rollout.projections.nodes import ABSENT
from rollout.queries.nodes import node_rows


def modules_known_on(*names: str) -> list[tuple[str, str]]:
    """Each node and module on which anything was ever scheduled."""
    return list(Placement.objects.filter(node__in=names).order_by("key").values_list("node", "module_name"))


def local_artifacts(name: str) -> list[dict[str, Any]]:
    """Return what is on the node's disk, as the vendor's route lists it."""
    rows = NodeModule.objects.filter(node=name).exclude(observed=ABSENT).order_by("module_name", "version")
    keys = [(row.module_name, row.version) for row in rows]
    dependencies = dependencies_of(keys)
    return [
        {"module_name": module_name, "version": version, "dependencies": dependencies[module_name, version]}
        for module_name, version in keys
    ]


def is_loaded(node_name: str, module_name: str, version: int) -> bool | None:
    """Whether the module is loaded there; None if it is not even on disk."""
    row = NodeModule.objects.filter(node=node_name, module_name=module_name, version=version).first()
    if row is None or row.observed == ABSENT:
        return None
    return row.observed == "load"


def users_of(module_name: str, version: int) -> list[str]:
    """Nodes that have the module version, or are to get it; also if only the reconciler is to bring it, for it may be
    released at any moment."""
    of_version = {"module_name": module_name, "version": version}
    waiting = Operation.objects.filter(**of_version, action=Action.INSTALL, finished_at__isnull=True)
    there = NodeModule.objects.filter(**of_version, node__in=node_rows().values("name")).exclude(
        observed=ABSENT, desired=ABSENT, rollout=""
    )
    # In this order: an operation that ends between the queries has left its row of the module before.
    coming = set(waiting.values_list("node", flat=True))
    return sorted(coming | set(there.values_list("node", flat=True)))


def refuse_if_used(module_name: str, version: int) -> Condition:
    """What holds as long as nobody begins to use it. Raises: `ArtifactInUseError` naming some of the nodes."""
    unused = Condition(after=head(), event_types=USING)
    if users := users_of(module_name, version):
        raise ArtifactInUseError(f"{some_of(users)} have {module_name} {version}, or are to get it.")
    return unused


def refuse_if_loaded(module_name: str, version: int) -> Condition:
    """What holds as long as nobody begins to load it. Raises: `ModuleInUseError` naming some of the nodes."""
    unused = Condition(after=head(), event_types=USING)
    if loaders := _loaders_of(module_name, version):
        raise ModuleInUseError(
            f"{some_of(loaders)} have loaded {module_name} {version}, or are to load it. "
            "Remove it first, by a rollout with the action remove."
        )
    return unused


def _loaders_of(module_name: str, version: int) -> list[str]:
    """Nodes that have loaded the module version, or are to load it, whoever has asked for that."""
    of_version = {"module_name": module_name, "version": version}
    waiting = Operation.objects.filter(
        **of_version, action=Action.INSTALL, activation=Activation.LOAD, finished_at__isnull=True
    )
    there = NodeModule.objects.filter(
        Q(observed=Activation.LOAD) | Q(desired=Activation.LOAD), **of_version, node__in=node_rows().values("name")
    )
    # In this order: what an operation that ends between the queries was to load is wanted before.
    coming = set(waiting.values_list("node", flat=True))
    return sorted(coming | set(there.values_list("node", flat=True)))


def some_of(names: Sequence[str], *, most: int = 5) -> str:
    """`a, b, c, d, e and 7 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def modules_on(nodes: Collection[str] | None, module_name: str) -> dict[str, list[NodeModule]]:
    """What is wanted and seen of the module, by node. `nodes` None: on all of them."""
    rows = NodeModule.objects.filter(module_name=module_name)
    found: dict[str, list[NodeModule]] = {}
    for row in rows if nodes is None else rows.filter(node__in=nodes):
        found.setdefault(row.node, []).append(row)
    return found


def other_modules_on(nodes: Collection[str] | None, module_name: str) -> list[tuple[str, str, int, str]]:
    """What else is wanted there or on its way, sorted: node, module, version, and how far it is to be brought. Not what
    the reconciler has only scheduled."""
    wanted = NodeModule.objects.exclude(module_name=module_name).exclude(desired=ABSENT)
    coming = Operation.objects.exclude(module_name=module_name).filter(action=Action.INSTALL, finished_at__isnull=True)
    coming = coming.exclude(yields=True, phase=Phase.SCHEDULED)
    if nodes is not None:
        wanted, coming = wanted.filter(node__in=nodes), coming.filter(node__in=nodes)
    return sorted(
        {
            # In this order: what an operation that ends between the queries was to bring is wanted before.
            *coming.values_list("node", "module_name", "version", "activation"),
            *wanted.values_list("node", "module_name", "version", "desired"),
        }
    )
