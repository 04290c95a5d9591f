"""Answers about rollouts and nodes."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from django.db.models import Case, Count, Exists, OuterRef, Q, QuerySet, Subquery, When, Window
from django.db.models.functions import RowNumber

from api.fields import rfc3339
from artifacts_app.selectors import dependencies_of
from eventstore import Condition, RecordedEvent, head, in_words, load_positions, shown, snapshot
from modules_app.errors import ModuleInUseError
from rollout.decider.node import LARGEST_SKEW, NodePhase
from rollout.decider.pace import SECONDS, Change
from rollout.decider.placement import NOTHING_TO_DO
from rollout.errors import (
    ArtifactInUseError,
    FleetFrozenError,
    NodeNotFoundError,
    NoLocalNodeError,
    RolloutNotFoundError,
)
from rollout.events import FINAL_ROLLOUT_PHASES, RolloutPhase
from rollout.messages import (
    RUNNING_PHASES,
    Action,
    Activation,
    Beat,
    InstalledModule,
    Inventory,
    NodeProfile,
    Phase,
    Reason,
)
from rollout.models import FleetFreeze, Liveness, Node, NodeModule, Operation, Placement, Rollout, TimelineEntry
from rollout.outcomes import BAD, outcomes_of
from rollout.premises import USING
from rollout.projections.nodes import ABSENT, ModuleState
from rollout.projections.rollouts import operation_key
from rollout.requests import RolloutRequest

#: Why an operation does nothing where nothing is lacking afterwards: the node is as it was asked for, or has left.
_WITHOUT_LOSS = (*sorted(NOTHING_TO_DO), Reason.NODE_DECOMMISSIONED)
IN_HAND = (Phase.QUEUED, *sorted(RUNNING_PHASES))


# --- For the services -------------------------------------------------------------------------------------------------


def failed_nodes(uid: str) -> list[str]:
    """In the rollout's order, without those that have left the fleet."""
    failed = Operation.objects.filter(rollout=uid, phase__in=BAD, node__in=nodes().values("name"))
    return list(failed.order_by("ordinal").values_list("node", flat=True))


def operations_by_key(keys: Iterable[str]) -> dict[str, Operation]:
    return Operation.objects.in_bulk(set(keys))


def unfinished_operations_of(*nodes: str) -> list[Operation]:
    return list(Operation.objects.filter(node__in=nodes, finished_at__isnull=True))


def operations_of_gone_nodes() -> list[Operation]:
    gone = Node.objects.filter(name=OuterRef("node"), phase=NodePhase.DECOMMISSIONED)
    return list(Operation.objects.filter(Exists(gone), finished_at__isnull=True))


def modules_known_on(*names: str) -> list[tuple[str, str]]:
    """Each node and module on which anything was ever scheduled."""
    return list(Placement.objects.filter(node__in=names).order_by("key").values_list("node", "module_name"))


def unfinished_rollouts_of(*nodes: str) -> list[str]:
    """Those with an unfinished operation on one of the nodes."""
    unfinished = Operation.objects.filter(node__in=nodes, finished_at__isnull=True)
    return list(unfinished.order_by("rollout").values_list("rollout", flat=True).distinct())


def unfinished_rollouts() -> list[str]:
    return list(_unfinished().values_list("uid", flat=True))


def unfinished_rollouts_among(
    uids: Collection[str], *, nodes: Collection[str], places: Collection[tuple[str, str]]
) -> list[str]:
    """Those of `uids`, those that have an operation on one of the nodes, ended or not, and those that have one on one of
    the places: a node and a module."""
    own = Operation.objects.filter(rollout=OuterRef("uid"))
    of_places = Q(module_name__in={name for _, name in places}) & Exists(
        own.filter(node__in={node for node, _ in places})
    )
    found = _unfinished().filter(Q(uid__in=uids) | Exists(own.filter(node__in=nodes)) | of_places)
    return list(found.values_list("uid", flat=True))


def unfinished_rollouts_that_need(uids: Collection[str]) -> list[str]:
    """Those that one of these has to succeed for."""
    waiting = _unfinished().exclude(needs=[]).values_list("uid", "needs")
    return [uid for uid, needs in waiting if not set(uids).isdisjoint(needs)]


def _unfinished() -> QuerySet[Rollout]:
    """The oldest first. By the phases that they may have: what has ended is not read."""
    return Rollout.objects.filter(phase__in=sorted(set(RolloutPhase) - FINAL_ROLLOUT_PHASES)).order_by("created_at")


def overdue_operations(now: datetime) -> list[Operation]:
    """Released, and not ended by their deadline."""
    return list(Operation.objects.filter(phase__in=IN_HAND, deadline_at__lt=now))


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

    def changes(self, beat: Beat) -> frozenset[Change]:
        """Return what the beat says that is not known: all if the node joins by it."""
        if self.row is None or self.has_left:
            return frozenset(Change) if self.row is None or beat.hello else frozenset()
        known, said = profile_of(self.row), beat.profile
        gets_others = _build_of(known) != _build_of(said)
        changed = {
            Change.CONTACT: not self.row.online,
            Change.PLATFORM: gets_others,
            Change.PROFILE: known != said and not gets_others,
            Change.INVENTORY: self.modules != frozenset(beat.inventory.modules),
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


# --- Rollouts ---------------------------------------------------------------------------------------------------------


def rollouts() -> QuerySet[Rollout]:
    """Newest first."""
    return Rollout.objects.order_by("-started_position")


def rollout_row(uid: str) -> Rollout:
    """Raises: `RolloutNotFoundError`."""
    row = Rollout.objects.filter(uid=uid).first()
    if row is None:
        raise RolloutNotFoundError
    return row


def rollout_document(uid: str) -> tuple[str, int, str]:
    """The rollout as JSON text, the position of its newest event, its phase. Raises: `RolloutNotFoundError`."""
    found = Rollout.objects.filter(uid=uid).values_list("document", "position", "phase").first()
    if found is None:
        raise RolloutNotFoundError
    return found


def newest_positions(uids: Collection[str]) -> dict[str, int]:
    """The position of the newest event of each of these rollouts. One query."""
    return dict(Rollout.objects.filter(uid__in=uids).values_list("uid", "position"))


def operations(uid: str) -> QuerySet[Operation]:
    """The rollout's nodes in its order. Raises: `RolloutNotFoundError`."""
    if not Rollout.objects.filter(uid=uid).exists():
        raise RolloutNotFoundError
    return Operation.objects.filter(rollout=uid).order_by("ordinal")


def operation(uid: str, node: str) -> Operation:
    """Raises: `RolloutNotFoundError`, `NodeNotFoundError`."""
    row = Operation.objects.filter(key=operation_key(uid, node)).first()
    if row is None:
        rollout_row(uid)
        raise NodeNotFoundError(f"{node} is not part of this rollout.")
    return row


def operation_documents(rows: Sequence[Operation]) -> list[dict[str, Any]]:
    """The operations as JSON, each with all its outcomes; at most one query."""
    outcomes = outcomes_of(rows)
    return [operation_document(each, outcomes[each.key]) for each in rows]


def operation_document(row: Operation, outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "node": row.node,
        "module_name": row.module_name,
        "version": row.version,
        "action": row.action,
        "activation": row.activation,
        "phase": row.phase,
        "reason": row.reason or None,
        "message": row.message,
        "generation": row.generation,
        "attempt": row.newest_attempt,
        "wave": row.wave if row.wave >= 0 else None,
        "rollback": row.rollback,
        "requested_by": row.asked_by,
        "automatic": row.automatic,
        "canceled_by": row.canceled_by or None,
        "content_sha256": row.content_sha256 or None,
        "scheduled_at": rfc3339(row.scheduled_at),
        "released_at": rfc3339(row.released_at) if row.released_at else None,
        "started_at": rfc3339(row.started_at) if row.started_at else None,
        "finished_at": rfc3339(row.finished_at) if row.finished_at else None,
        "seconds": row.seconds,
        "swap_seconds": row.swap_seconds,
        "outcomes": outcomes,
    }


def rollout_events(uid: str, *, after: int, limit: int) -> list[RecordedEvent]:
    """The events that tell the rollout's story, after a position of the log."""
    entries = TimelineEntry.objects.filter(rollout=uid, position__gt=after).order_by("position")
    return load_positions(list(entries.values_list("position", flat=True)[:limit]))


def newest_rollout_events(uid: str, *, limit: int) -> list[RecordedEvent]:
    """The last of the events that tell the rollout's story, in their order."""
    entries = TimelineEntry.objects.filter(rollout=uid).order_by("-position")
    return load_positions(sorted(entries.values_list("position", flat=True)[:limit]))


def event_document(recorded: RecordedEvent) -> dict[str, Any]:
    """As the API shows it, and webhooks get it."""
    return {
        "position": recorded.position,
        "stream": recorded.stream,
        "version": recorded.version,
        "type": recorded.type,
        "recorded_at": rfc3339(recorded.recorded_at),
        "event_id": recorded.event_id.hex,
        "actor": recorded.shown_actor,
        "requested_by": shown(recorded.metadata.requested_by),
        "correlation_id": recorded.metadata.correlation_id,
        "causation_id": recorded.metadata.causation_id,
        "data": msgspec.to_builtins(recorded.event),
    }


def attempts_to_look_at(uid: str, *, limit: int) -> list[Operation]:
    """The first attempts of the rollout that failed, also those that were retried or undone, then those in hand."""
    urgency = Case(When(phase__in=BAD, then=0), default=1)
    rows = Operation.attempts.filter(rollout=uid, phase__in=(*BAD, *IN_HAND))
    return list(rows.order_by(urgency, "former", "ordinal", "generation", "attempt")[:limit])


def refuse_if_frozen() -> None:
    """Raises: `FleetFrozenError`."""
    if (freeze := freeze_document())["frozen"]:
        raise FleetFrozenError(f"The fleet is frozen by {in_words(freeze['actor'])}: {freeze['reason']}")


def freeze_document() -> dict[str, Any]:
    """Whether the fleet is frozen; who did it and why, also after it was lifted."""
    row = FleetFreeze.objects.filter(id=1).first()
    return {
        "frozen": row is not None and row.frozen,
        "reason": row.reason if row else None,
        "actor": row.actor if row else None,
        "frozen_at": rfc3339(row.frozen_at) if row else None,
        "thawed_at": rfc3339(row.thawed_at) if row and row.thawed_at else None,
    }


# --- Nodes ------------------------------------------------------------------------------------------------------------


def nodes() -> QuerySet[Node]:
    """All that have not left the fleet, by name."""
    return Node.objects.exclude(phase=NodePhase.DECOMMISSIONED).order_by("name")


def node(name: str) -> Node:
    """Raises: `NodeNotFoundError`."""
    row = Node.objects.filter(name=name).first()
    if row is None:
        raise NodeNotFoundError
    return row


def node_with_position(position: int) -> Node:
    """The node of the fleet that first joined at this position. Raises: `NodeNotFoundError`."""
    row = nodes().filter(joined_position=position).first()
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


def attempts_on(name: str) -> QuerySet[Operation]:
    """Everything that was done to the node: each attempt and each undo. Raises: `NodeNotFoundError`."""
    node(name)
    return Operation.attempts.filter(node=name)


def newest_attempts_on(name: str, *, limit: int) -> list[Operation]:
    """What was last done to the node."""
    return list(Operation.attempts.filter(node=name).order_by("-scheduled_position")[:limit])


def attempt_document(row: Operation) -> dict[str, Any]:
    """One line of a node's history."""
    return {
        "scheduled_at": rfc3339(row.scheduled_at),
        "finished_at": rfc3339(row.finished_at) if row.finished_at else None,
        "action": row.action,
        "module_name": row.module_name,
        "version": row.version,
        "activation": row.activation,
        "content_sha256": row.content_sha256 or None,
        "rollback": row.rollback,
        "attempt": row.newest_attempt,
        "phase": row.phase,
        "reason": row.reason or None,
        "message": row.message,
        "seconds": row.seconds,
        "rollout": row.rollout,
        "requested_by": row.asked_by,
        "automatic": row.automatic,
        "canceled_by": row.canceled_by or None,
    }


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
    for row in nodes():
        if host.lower() in (each.lower() for each in row.api_hosts):
            return row
        if row.name == default:
            named = row
    if named is not None:
        return named
    if default:
        raise NoLocalNodeError(f"No node answers to {host}, and NODE_NAME names {default}, which is not in the fleet.")
    raise NoLocalNodeError(f"No node answers to {host}. Set NODE_NAME, or MODFLEET_API_HOSTS on the node.")


def local_artifacts(name: str) -> list[dict[str, Any]]:
    """What is on the node's disk, as the seed lists it."""
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
    there = NodeModule.objects.filter(**of_version, node__in=nodes().values("name")).exclude(
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
        Q(observed=Activation.LOAD) | Q(desired=Activation.LOAD), **of_version, node__in=nodes().values("name")
    )
    # In this order: what an operation that ends between the queries was to load is wanted before.
    coming = set(waiting.values_list("node", flat=True))
    return sorted(coming | set(there.values_list("node", flat=True)))


def some_of(names: Sequence[str], *, most: int = 5) -> str:
    """`a, b, c, d, e and 7 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def is_same_intent(uid: str, node_name: str, request: RolloutRequest) -> bool:
    """Whether the operation of the rollout on the node brings about what the request asks for."""
    row = operation(uid, node_name)
    return (row.module_name, row.version, row.action, row.activation) == (
        request.module_name,
        request.version,
        request.action,
        request.activation,
    )


def is_rollout_of(uid: str, request: RolloutRequest) -> bool:
    """Whether the rollout is one of the whole fleet that brings about what the request asks for."""
    row = rollout_row(uid)
    return not row.named and (row.module_name, row.version, row.action, row.activation, row.origin) == (
        request.module_name,
        request.version,
        request.action,
        request.activation,
        request.origin,
    )


def shortfalls(rollouts: Collection[Rollout], *, most: int = 5) -> dict[str, str]:
    """Which nodes are not as the rollout was to leave them, each with its reason, by rollout; the first `most` of each,
    and how many more there are; of a rollout that did not succeed also what failed before it was retried or undone. One
    query."""
    bad = [each.uid for each in rollouts if each.phase != RolloutPhase.SUCCEEDED]
    short = Operation.attempts.filter(
        Q(former=False) | Q(phase__in=BAD, rollout__in=bad),
        Q(phase__in=[*BAD, Phase.CANCELED, Phase.SKIPPED]) & ~Q(reason__in=_WITHOUT_LOSS),
        rollout__in=[each.uid for each in rollouts],
    )
    order = ("ordinal", "generation", "attempt")
    ranked = short.annotate(
        place=Window(RowNumber(), partition_by="rollout", order_by=order),
        count=Window(Count("key"), partition_by="rollout"),
    )
    said: dict[str, list[str]] = {}
    for each in ranked.filter(place__lte=most).order_by("rollout", *order):
        words = said.setdefault(each.rollout, [])
        reason = each.phase if each.reason in {"", Reason.MANUAL} else each.reason
        words.append(f"{each.node}: {each.message or reason.replace('_', ' ')}")
        if len(words) == most < each.count:
            words.append(f"and {each.count - most} more")
    return {uid: "; ".join(words) for uid, words in said.items()}


# --- For plans --------------------------------------------------------------------------------------------------------


def modules_on(nodes: Collection[str] | None, module_name: str) -> dict[str, list[NodeModule]]:
    """What is wanted and seen of the module, by node. `nodes` None: on all of them."""
    rows = NodeModule.objects.filter(module_name=module_name)
    found: dict[str, list[NodeModule]] = {}
    for row in rows if nodes is None else rows.filter(node__in=nodes):
        found.setdefault(row.node, []).append(row)
    return found


def unfinished_on(nodes: Collection[str] | None, module_name: str) -> dict[str, list[Operation]]:
    """The operations of the module that have not ended, by node. `nodes` None: on all of them."""
    rows = Operation.objects.filter(module_name=module_name, finished_at__isnull=True)
    found: dict[str, list[Operation]] = {}
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


def known_generations(nodes: Collection[str] | None) -> dict[str, dict[str, int]]:
    """The newest generation that each node has journaled, by module."""
    rows = Liveness.objects.all()
    return dict((rows if nodes is None else rows.filter(node__in=nodes)).values_list("node", "generations"))


def measured_seconds(action: Action, module_name: str, *, limit: int) -> list[float]:
    """How long the newest operations that succeeded took: of this module, else of any; at most `limit` of each."""
    succeeded = Rollout.objects.filter(action=action, succeeded__gt=0).order_by("-started_position")
    for rollouts_of in (succeeded.filter(module_name=module_name), succeeded):
        uids, count = [], 0
        for uid, operations_of in rollouts_of.values_list("uid", "succeeded")[:limit]:
            if count < limit:
                uids.append(uid)
                count += operations_of
        rows = Operation.objects.filter(rollout__in=uids, phase=Phase.SUCCEEDED, seconds__isnull=False)
        newest = rows.order_by("-finished_at").values_list("seconds", flat=True)[:limit]
        if seconds := [each for each in newest if each is not None]:
            return seconds
    return []
