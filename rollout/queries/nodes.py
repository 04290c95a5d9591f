"""Answers about nodes."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from django.db.models import Count, Exists, OuterRef, QuerySet, Subquery

from rollout.domain.errors import NodeNotFoundError, NoLocalNodeError
from rollout.domain.node.events import ABSENT
from rollout.domain.node.health import Degradation, degradation_of
from rollout.domain.node.pace import Change
from rollout.domain.node.state import Identity, NodePhase
from rollout.messages import ConfigurationChange, Heartbeat, InstalledModule, Inventory, NodeProfile
from rollout.models import Liveness, Node, NodeModule, Operation, ShardMember
from rollout.projections.node_modules import ModuleState

Row = TypeVar("Row", NodeModule, Operation)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNode:
    """A node as the read models have it. `row`: None if no heartbeat of the node was ever recorded. `settled`: its modules
    that are in their desired state."""

    row: Node | None
    modules: frozenset[InstalledModule]
    settled: frozenset[InstalledModule]

    @property
    def has_left(self) -> bool:
        return self.row is not None and self.row.phase == NodePhase.DECOMMISSIONED

    @property
    def is_member(self) -> bool:
        return self.row is not None and not self.has_left

    @property
    def degradation(self) -> Degradation | None:
        if self.row is None or not self.row.degraded_reason:
            return None
        return Degradation(reason=self.row.degraded_reason, message=self.row.degraded_message)

    def degradation_by(self, heartbeat: Heartbeat) -> Degradation | None:
        """Return why the node cannot be used, by the heartbeat."""
        joins = self.row is None or self.row.phase == NodePhase.PENDING or self.has_left
        return degradation_of(heartbeat, self.degradation, joins=joins)

    def changes(self, heartbeat: Heartbeat) -> frozenset[Change]:
        """Return the kinds of changes that the heartbeat brings; all kinds if the node joins by it."""
        if self.row is None or self.has_left:
            return frozenset(Change) if self.row is None or heartbeat.hello else frozenset()
        known, reported = profile_of(self.row), heartbeat.profile
        gets_others = _build_of(known) != _build_of(reported)
        changed = {
            Change.CONTACT: not self.row.online,
            Change.PLATFORM: gets_others,
            Change.PROFILE: known != reported and not gets_others,
            Change.INVENTORY: self.modules != frozenset(heartbeat.inventory.modules),
            Change.HEALTH: self.degradation != self.degradation_by(heartbeat),
            Change.CONFIGURATION: any(
                each.id not in self.row.configuration_changes for each in configuration_changes(heartbeat)
            ),
        }
        return frozenset(change for change, is_new in changed.items() if is_new)

    def completed(self, heartbeat: Heartbeat) -> Heartbeat:
        """Return the heartbeat. If its agent could not ask the server, modules whose files are unchanged are still loaded, as
        far as is known: otherwise a removal would take them for mere files, and would not wait for its turn."""
        if heartbeat.facts is None or not heartbeat.facts.problem:
            return heartbeat
        loaded = {each for each in self.modules if each.loaded}
        modules = (
            replace(each, loaded=each.loaded or replace(each, loaded=True) in loaded)
            for each in heartbeat.inventory.modules
        )
        return replace(heartbeat, inventory=replace(heartbeat.inventory, modules=tuple(modules)))

    def lost(self, inventory: Inventory) -> frozenset[tuple[str, int]]:
        """Return name and version of each module that was in its desired state and is no longer."""
        return frozenset((each.module_name, each.version) for each in self.settled.difference(inventory.modules))


def configuration_changes(heartbeat: Heartbeat) -> tuple[ConfigurationChange, ...]:
    return heartbeat.facts.configuration_changes if heartbeat.facts else ()


def _build_of(profile: NodeProfile) -> tuple[str, ...]:
    """Return the fields that decide which build the node gets."""
    return profile.platform, profile.operating_system, profile.server


def profile_of(row: Node) -> NodeProfile:
    return NodeProfile(
        platform=row.platform,
        operating_system=row.operating_system,
        server=row.server,
        server_version=row.server_version,
        redis_version=row.redis_version,
        role=row.role,
        api_hosts=tuple(row.api_hosts),
        labels=row.agent_labels,
        other_modules=tuple(row.other_modules),
    )


def known_nodes(names: Iterable[str]) -> dict[str, KnownNode]:
    """Return an entry for each name, in two queries."""
    names = list(names)
    rows = {row.name: row for row in Node.objects.filter(name__in=names)}
    modules: dict[str, set[InstalledModule]] = {name: set() for name in names}
    settled: dict[str, set[InstalledModule]] = {name: set() for name in names}
    for row in NodeModule.objects.filter(node__in=names):
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
        for name in names
    }


def silent_among(names: Iterable[str]) -> list[str]:
    """Return those that are declared offline and not decommissioned, by name."""
    silent = node_rows().filter(name__in=names, online=False)
    return list(silent.order_by("name").values_list("name", flat=True))


def node_rows() -> QuerySet[Node]:
    """Return the nodes of the fleet, by name: all that are neither pending nor decommissioned."""
    return listed_nodes().exclude(phase=NodePhase.PENDING)


def listed_nodes() -> QuerySet[Node]:
    """Return the nodes of the fleet and the pending ones, by name."""
    return Node.objects.exclude(phase=NodePhase.DECOMMISSIONED).order_by("name")


def decommissioned_nodes() -> QuerySet[Node, str]:
    return Node.objects.filter(phase=NodePhase.DECOMMISSIONED).values_list("name", flat=True)


def count_by_phase(rows: QuerySet[Node]) -> dict[str, int]:
    """Return how many of the nodes are in each phase; one query."""
    return dict(rows.order_by().values_list("phase").annotate(Count("name")))


def by_node(rows: QuerySet[Row], nodes: Collection[str] | None) -> dict[str, list[Row]]:
    """Return the rows that are about these nodes, by node; one query. `nodes` None: about all of them."""
    found: dict[str, list[Row]] = {}
    for row in rows if nodes is None else rows.filter(node__in=nodes):
        found.setdefault(row.node, []).append(row)
    return found


def node_row(name: str) -> Node:
    """Return the node, also a decommissioned one. Raises: `NodeNotFoundError`."""
    row = Node.objects.filter(name=name).first()
    if row is None:
        raise NodeNotFoundError
    return row


def node_with_position(position: int) -> Node:
    """Return the node of the fleet that first joined at this position. Raises: `NodeNotFoundError`."""
    row = node_rows().filter(joined_position=position).first()
    if row is None:
        raise NodeNotFoundError(f"The fleet has no node with the uid {position}.")
    return row


def nodes_with_liveness(rows: QuerySet[Node]) -> QuerySet[Node]:
    """Add `last_seen`, `hello_at`, `clock_skew_seconds`, `doubts`, `shard`, and `in_sync`: all modules of the node are in
    their desired state."""
    liveness = Liveness.objects.filter(node=OuterRef("name"))
    differing = NodeModule.objects.filter(node=OuterRef("name")).exclude(state=ModuleState.IN_SYNC)
    return rows.annotate(
        last_seen=Subquery(liveness.values("last_seen")),
        hello_at=Subquery(liveness.values("hello_at")),
        clock_skew_seconds=Subquery(liveness.values("clock_skew_seconds")),
        doubts=Subquery(liveness.values("doubts")),
        shard=Subquery(ShardMember.objects.filter(node=OuterRef("name")).values("shard")),
        in_sync=~Exists(differing),
    )


def members_of(shard: str | None) -> QuerySet[ShardMember]:
    """Return the nodes of the shard, from its top down."""
    return ShardMember.objects.filter(shard=shard).order_by("depth", "node")


def local_node(host: str, default: str, *, is_control_plane: bool = False) -> Node:
    """Return the node that reports `host` as its own, else the one named `default`.

    `is_control_plane`: the control plane itself has this host name. Then no node can claim it if there is a `default`.
    Raises: `NoLocalNodeError`, also if several nodes report the host: one of them is wrong, or lies.
    """
    rows = list(node_rows())
    believed = (row for row in rows if row.identity != Identity.REVOKED)
    named = [row for row in believed if host.lower() in (each.lower() for each in row.api_hosts)]
    if is_control_plane and default:
        named = []
    if len(named) > 1:
        names = ", ".join(row.name for row in named[:5])
        raise NoLocalNodeError(
            f"{len(named)} nodes say that {host} is their host name: {names}. Correct MODFLEET_API_HOSTS, "
            "or revoke or decommission the others."
        )
    found = [*named, *(row for row in rows if row.name == default)]
    if found:
        return found[0]
    if default:
        raise NoLocalNodeError(
            f"No node has the host name {host}, and the fleet has no node {default}, which NODE_NAME names."
        )
    raise NoLocalNodeError(f"No node has the host name {host}. Set NODE_NAME, or MODFLEET_API_HOSTS on the node.")


def known_generations(nodes: Collection[str] | None) -> dict[str, dict[str, int]]:
    """Return the newest generation that each node has journaled, by module."""
    rows = Liveness.objects.all()
    return dict((rows if nodes is None else rows.filter(node__in=nodes)).values_list("node", "generations"))
