"""Answers about nodes."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db.models import Count, Exists, OuterRef, QuerySet, Subquery

from api.fields import rfc3339
from eventstore import snapshot
from rollout.domain.errors import NodeNotFoundError, NoLocalNodeError
from rollout.domain.node.events import ABSENT
from rollout.domain.node.health import Degradation, degradation_of
from rollout.domain.node.pace import SECONDS, Change
from rollout.domain.node.state import LARGEST_SKEW, Identity, NodePhase
from rollout.messages import Heartbeat, InstalledModule, Inventory, NodeProfile
from rollout.models import Liveness, Node, NodeFacts, NodeModule, Operation
from rollout.projections.node_modules import ModuleState
from rollout.signing import key_id

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
        }
        return frozenset(change for change, is_new in changed.items() if is_new)

    def lost(self, inventory: Inventory) -> frozenset[tuple[str, int]]:
        """Return name and version of each module that was in its desired state and is no longer."""
        return frozenset((each.module_name, each.version) for each in self.settled.difference(inventory.modules))


def _build_of(profile: NodeProfile) -> tuple[str, ...]:
    """Return the fields that decide which build the node gets."""
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
    """Add `last_seen`, `hello_at`, `clock_skew_seconds`, `doubts`, and `in_sync`: all modules of the node are in their
    desired state."""
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
    """Return the nodes as JSON, with their modules; four queries, however many nodes there are."""
    listed = list(rows)
    names = [each.name for each in listed]
    lives = Liveness.objects.in_bulk(names)
    modules: dict[str, list[NodeModule]] = {name: [] for name in names}
    for row in NodeModule.objects.filter(node__in=names).order_by("module_name", "version"):
        modules[row.node].append(row)
    examined = NodeFacts.objects.filter(node__in=names, failed__isnull=False)
    doctors = {node: {"failed": failed, "warned": warned} for node, failed, warned in examined.values_list(*_SUMMARY)}
    return [
        node_document(each, modules[each.name], lives.get(each.name)) | {"doctor_summary": doctors.get(each.name)}
        for each in listed
    ]


_SUMMARY = ("node", "failed", "warned")


def node_detail(name: str) -> dict[str, Any]:
    """Return the node as JSON, with all that its agent has reported about its server. Raises: `NodeNotFoundError`."""
    (document,) = node_documents([node_row(name)])
    return detailed_node(document, NodeFacts.objects.filter(node=name).first())


def detailed_node(document: dict[str, Any], facts: NodeFacts | None) -> dict[str, Any]:
    """Return the document of a node with these facts."""
    return document | {
        "server_state": None if facts is None else facts.server | {"reported_at": rfc3339(facts.reported_at)},
        "doctor": None if facts is None else facts.doctor,
    }


def degraded_document(row: Node) -> dict[str, str] | None:
    """Return why the node's server cannot be used; None if it can."""
    return {"reason": row.degraded_reason, "message": row.degraded_message} if row.degraded_reason else None


def node_document(row: Node, modules: Iterable[NodeModule], life: Liveness | None) -> dict[str, Any]:
    """Return the node as JSON, with these of its modules."""
    skew = life.clock_skew_seconds if life else None
    return {
        "name": row.name,
        "phase": row.phase,
        "identity": row.identity,
        "keys": [key_id(public_key) for public_key, _ in row.keys],
        "duplicate": row.duplicate,
        "degraded": degraded_document(row),
        "last_seen": rfc3339(life.last_seen) if life else None,
        "clock_skew_seconds": None if skew is None else round(skew, 1),
        "warnings": node_warnings(row, skew, life.doubts if life else []),
        "platform": row.platform,
        "operating_system": row.operating_system,
        "server": row.server,
        "server_version": row.server_version,
        "role": row.role,
        "labels": {**row.agent_labels, **row.labels},
        "other_modules": row.other_modules,
        "doctor_summary": None,
        "modules": [_node_module_document(each) for each in modules],
    }


def node_warnings(row: Node, clock_skew_seconds: float | None, doubts: Iterable[str]) -> list[dict[str, str]]:
    """Return what is wrong with the node's identity and heartbeats: each has a code, and a message with the next step."""
    warnings = [] if row.phase == NodePhase.DECOMMISSIONED else [*_health_warnings(row), *_identity_warnings(row)]
    warnings += [_DOUBTS[each] for each in doubts]
    if clock_skew_seconds is not None and abs(clock_skew_seconds) > LARGEST_SKEW:
        words = f"{abs(clock_skew_seconds):.0f} s {'ahead' if clock_skew_seconds > 0 else 'behind'}"
        warnings.append(("clock_skew", f"The node's clock is {words}. Set it."))
    return [{"code": code, "message": message} for code, message in warnings]


def _health_warnings(row: Node) -> list[tuple[str, str]]:
    return [("degraded", f"{row.degraded_reason}: {row.degraded_message}")] if row.degraded_reason else []


def _identity_warnings(row: Node) -> list[tuple[str, str]]:
    warnings = []
    match Identity(row.identity):
        case Identity.UNSIGNED:
            warnings.append(("unsigned", f"Its messages are not signed. Join it: modfleet nodes add {row.name}"))
        case Identity.PENDING:
            warnings.append(("pending", f"It waits for a person to accept it: modfleet nodes accept {row.name}"))
        case Identity.REVOKED:
            warnings.append(("revoked", f"Its identity was revoked. It can join again: modfleet nodes add {row.name}"))
        case Identity.SIGNED:
            pass
    if row.duplicate:
        warnings.append(("duplicate_agent", "Two agents with its key are heard. Stop one of them, or revoke the node."))
    return warnings


_DOUBTS = {
    "counter": (
        "implausible_counter",
        "The counter in its messages is impossible, so they are ignored. Restart the agent.",
    ),
    "generations": (
        "implausible_generations",
        "Its journal has impossible generations, which are ignored. Check the journal on the node.",
    ),
    "changes": (
        "changes_too_often",
        f"It changes too often: one change in {SECONDS / 60:.0f} minutes is recorded. Check if another agent uses its name.",
    ),
    "contact": (
        "changes_too_often",
        f"It falls silent too often: it may count as online for {SECONDS / 60:.0f} minutes without a heartbeat. Check its network.",
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
