"""Answers about nodes."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet, Subquery

from api.fields import rfc3339
from eventstore import snapshot
from rollout.domain.errors import NodeNotFoundError, NoLocalNodeError
from rollout.domain.node.decider import LARGEST_SKEW, NodePhase
from rollout.domain.node.pace import SECONDS, Change
from rollout.messages import Heartbeat, InstalledModule, Inventory, NodeProfile
from rollout.models import Liveness, Node, NodeModule
from rollout.projections.nodes import ABSENT, ModuleState


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNode:
    """A node as the read models have it; `row` is None for one that was never heard of. `settled`: those of its modules
    that are as they are to be."""

    row: Node | None
    modules: frozenset[InstalledModule]
    settled: frozenset[InstalledModule]

    @property
    def has_left(self) -> bool:
        return self.row is not None and self.row.phase == NodePhase.DECOMMISSIONED

    @property
    def is_member(self) -> bool:
        return self.row is not None and not self.has_left

    def changes(self, heartbeat: Heartbeat) -> frozenset[Change]:
        """Return what the heartbeat says that is not known: all if the node joins by it."""
        if self.row is None or self.has_left:
            return frozenset(Change) if self.row is None or heartbeat.hello else frozenset()
        known, said = profile_of(self.row), heartbeat.profile
        gets_others = _build_of(known) != _build_of(said)
        changed = {
            Change.CONTACT: not self.row.online,
            Change.PLATFORM: gets_others,
            Change.PROFILE: known != said and not gets_others,
            Change.INVENTORY: self.modules != frozenset(heartbeat.inventory.modules),
        }
        return frozenset(change for change, is_new in changed.items() if is_new)

    def lost(self, inventory: Inventory) -> frozenset[tuple[str, int]]:
        """Return name and version of each module that was as it was to be and is not any more."""
        return frozenset((each.module_name, each.version) for each in self.settled.difference(inventory.modules))


def _build_of(profile: NodeProfile) -> tuple[str, ...]:
    """What decides which build the node gets."""
    return profile.platform, profile.operating_system, profile.server


def profile_of(row: Node) -> NodeProfile:
    return NodeProfile(
        platform=row.platform,
        operating_system=row.operating_system,
        server=row.server,
        server_version=row.server_version,
        role=row.role,
        api_hosts=tuple(row.api_hosts),
        labels=row.agent_labels,
        other_modules=tuple(row.other_modules),
    )


def known_nodes(names: Iterable[str]) -> dict[str, KnownNode]:
    """An entry for each name, in two queries."""
    wanted = list(names)
    rows = {row.name: row for row in Node.objects.filter(name__in=wanted)}
    modules: dict[str, set[InstalledModule]] = {name: set() for name in wanted}
    settled: dict[str, set[InstalledModule]] = {name: set() for name in wanted}
    for row in NodeModule.objects.filter(node__in=wanted):
        if row.observed != ABSENT:
            module = InstalledModule(
                module_name=row.module_name,
                version=row.version,
                content_sha256=row.content_sha256,
                loaded=row.observed == "load",
            )
            modules[row.node].add(module)
            if row.state == ModuleState.IN_SYNC:
                settled[row.node].add(module)
    return {
        name: KnownNode(row=rows.get(name), modules=frozenset(modules[name]), settled=frozenset(settled[name]))
        for name in wanted
    }


def silent_among(names: Iterable[str]) -> list[str]:
    """Those that were declared offline and have not left the fleet, in the order of their names."""
    silent = Node.objects.filter(name__in=names, online=False).exclude(phase=NodePhase.DECOMMISSIONED)
    return list(silent.order_by("name").values_list("name", flat=True))


def node_rows() -> QuerySet[Node]:
    """All that have not left the fleet, by name."""
    return Node.objects.exclude(phase=NodePhase.DECOMMISSIONED).order_by("name")


def node_row(name: str) -> Node:
    """Raises: `NodeNotFoundError`."""
    row = Node.objects.filter(name=name).first()
    if row is None:
        raise NodeNotFoundError
    return row


def node_with_position(position: int) -> Node:
    """The node of the fleet that first joined at this position. Raises: `NodeNotFoundError`."""
    row = node_rows().filter(joined_position=position).first()
    if row is None:
        raise NodeNotFoundError(f"The fleet has no node with the uid {position}.")
    return row


def nodes_with_liveness(rows: QuerySet[Node]) -> QuerySet[Node]:
    """With `last_seen`, `hello_at`, `clock_skew_seconds`, `doubts`, and whether all of the node's modules are as they
    are to be (`in_sync`)."""
    liveness = Liveness.objects.filter(node=OuterRef("name"))
    differing = NodeModule.objects.filter(node=OuterRef("name")).exclude(state=ModuleState.IN_SYNC)
    return rows.annotate(
        last_seen=Subquery(liveness.values("last_seen")),
        hello_at=Subquery(liveness.values("hello_at")),
        clock_skew_seconds=Subquery(liveness.values("clock_skew_seconds")),
        doubts=Subquery(liveness.values("doubts")),
        in_sync=~Exists(differing),
    )


@snapshot()
def node_documents(rows: Iterable[Node]) -> list[dict[str, Any]]:
    """The nodes as JSON, with their modules; three queries however many there are."""
    listed = list(rows)
    names = [each.name for each in listed]
    lives = Liveness.objects.in_bulk(names)
    modules: dict[str, list[NodeModule]] = {name: [] for name in names}
    for row in NodeModule.objects.filter(node__in=names).order_by("module_name", "version"):
        modules[row.node].append(row)
    return [node_document(each, modules[each.name], lives.get(each.name)) for each in listed]


def node_document(row: Node, modules: Iterable[NodeModule], life: Liveness | None) -> dict[str, Any]:
    """The node as JSON, with these of its modules."""
    skew = life.clock_skew_seconds if life else None
    return {
        "name": row.name,
        "phase": row.phase,
        "last_seen": rfc3339(life.last_seen) if life else None,
        "clock_skew_seconds": None if skew is None else round(skew, 1),
        "warnings": node_warnings(skew, life.doubts if life else []),
        "platform": row.platform,
        "operating_system": row.operating_system,
        "server": row.server,
        "server_version": row.server_version,
        "role": row.role,
        "labels": {**row.agent_labels, **row.labels},
        "other_modules": row.other_modules,
        "modules": [_node_module_document(each) for each in modules],
    }


def node_warnings(clock_skew_seconds: float | None, doubts: Iterable[str]) -> list[dict[str, str]]:
    """What is wrong with what the node says, each with a code, and a message that says what to do."""
    warnings = [{"code": code, "message": message} for code, message in (_DOUBTS[each] for each in doubts)]
    if clock_skew_seconds is not None and abs(clock_skew_seconds) > LARGEST_SKEW:
        words = f"{abs(clock_skew_seconds):.0f} s {'ahead' if clock_skew_seconds > 0 else 'behind'}"
        warnings.append({"code": "clock_skew", "message": f"The node's clock is {words}. Set it."})
    return warnings


_DOUBTS = {
    "counter": (
        "implausible_counter",
        "Its agent counts its messages as no agent can, and they are ignored. Restart the agent.",
    ),
    "generations": (
        "implausible_generations",
        "Its journal names generations that no node can have reached. They are ignored. Look at its journal.",
    ),
    "changes": (
        "changes_too_often",
        f"It changes too often: one change in {SECONDS / 60:.0f} minutes is recorded. Does another agent have its name?",
    ),
    "contact": (
        "changes_too_often",
        f"It falls silent too often: it may count as online for {SECONDS / 60:.0f} minutes without a heartbeat. Look at its network.",
    ),
}


def _node_module_document(row: NodeModule) -> dict[str, Any]:
    return {
        "module_name": row.module_name,
        "version": row.version,
        "desired": row.desired,
        "desired_sha256": row.desired_sha256 or None,
        "observed": row.observed,
        "state": row.state,
        "drifted_at": rfc3339(row.drifted_at) if row.drifted_at else None,
        "content_sha256": row.content_sha256 or None,
        "loaded": row.observed == "load",
    }


def local_node(host: str, default: str) -> Node:
    """The node that has reported `host` as its own, else the one named `default`. Raises: `NoLocalNodeError`."""
    named = None
    for row in node_rows():
        if host.lower() in (each.lower() for each in row.api_hosts):
            return row
        if row.name == default:
            named = row
    if named is not None:
        return named
    if default:
        raise NoLocalNodeError(f"No node answers to {host}, and NODE_NAME names {default}, which is not in the fleet.")
    raise NoLocalNodeError(f"No node answers to {host}. Set NODE_NAME, or MODFLEET_API_HOSTS on the node.")


def known_generations(nodes: Collection[str] | None) -> dict[str, dict[str, int]]:
    """The newest generation that each node has journaled, by module."""
    rows = Liveness.objects.all()
    return dict((rows if nodes is None else rows.filter(node__in=nodes)).values_list("node", "generations"))
