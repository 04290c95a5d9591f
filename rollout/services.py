"""Starts, steers and moves on rollouts; takes in what agents say. Everything here may be repeated."""

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
from django.db.models import Max

from artifacts_app.selectors import builds
from artifacts_app.services import artifact_deletion
from eventstore.context import acting_as
from eventstore.decider import Decider
from eventstore.store import Append, ConcurrencyError, append, database_now
from eventstore.transact import Loaded, load_state, load_states, retry_on_conflict, transact
from modules_app.services import module_purged, module_uid
from rollout import selectors
from rollout.decider.node import (
    NODE,
    ActivateNode,
    DeclareOffline,
    DecommissionNode,
    DrainNode,
    LabelNode,
    NodePhase,
    RecordBeat,
    RecordInventory,
)
from rollout.decider.placement import PLACEMENT, End, GiveBack, PlacementCommand, RecordReport, Release, Retry, Schedule
from rollout.decider.rollout import ROLLOUT, Abort, Advance, RetryNodes, RolloutState, Start
from rollout.errors import (
    InvalidRolloutError,
    NoNodesError,
    NothingToRetryError,
    RolloutNotFoundError,
    UnknownNodeError,
)
from rollout.events import (
    NodesReleased,
    Origin,
    RolloutFinished,
    RolloutPhase,
    RolloutStarted,
    Strategy,
    node_stream,
    placement_stream,
    rollout_stream,
)
from rollout.messages import Action, Activation, Beat, Phase, Reason, Report, from_json
from rollout.models import Liveness, Node

logger = logging.getLogger(__name__)

#: A node that has been silent for so many of its intervals is offline.
MISSED_BEATS = 3


# --- What people ask for ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """`nodes` None: all of the fleet, which only with `may_be_empty` may have none.
    `purge`: delete module object and artifact once every node has succeeded."""

    action: Action
    module_name: str
    version: int
    activation: Activation = Activation.LOAD
    nodes: tuple[str, ...] | None = None
    strategy: Strategy = field(default_factory=Strategy)
    supersede: bool = False
    origin: Origin = Origin.API
    retry_of: str = ""
    may_be_empty: bool = False
    purge: bool = False


def start_rollout(request: RolloutRequest) -> str:
    """The uid of the new rollout, of which every node is scheduled; nothing has been sent to any node yet.

    Raises: `RolloutError`, `artifacts_app.errors.ArtifactNotFoundError`.
    """
    uid = uuid.uuid4().hex

    @retry_on_conflict
    def attempt() -> None:
        append(*_start(uid, request))

    attempt()
    return uid


def _start(uid: str, request: RolloutRequest) -> list[Append]:
    nodes = _chosen_nodes(request)
    schedules = _schedules(uid, request, nodes)
    started = RolloutStarted(
        rollout=uid,
        action=request.action,
        module_name=request.module_name,
        version=request.version,
        activation=request.activation,
        total=len(nodes),
        named=request.nodes is not None,
        strategy=request.strategy,
        origin=request.origin,
        retry_of=request.retry_of,
        purge=request.purge,
    )
    # First of the rollout, then of its nodes: a projection folds the events in their order.
    new = Append(rollout_stream(uid), 0, ROLLOUT.decide(RolloutState(), Start(started=started)))
    return [new, *_placements(schedules)]


def _chosen_nodes(request: RolloutRequest) -> list[Node]:
    if request.nodes is None:
        nodes = list(Node.objects.exclude(phase=NodePhase.DECOMMISSIONED).order_by("name"))
        if not nodes and not request.may_be_empty:
            raise NoNodesError
        return nodes
    found = Node.objects.exclude(phase=NodePhase.DECOMMISSIONED).in_bulk(list(request.nodes))
    if unknown := sorted(set(request.nodes) - found.keys()):
        raise UnknownNodeError(f"The fleet has no node {', '.join(unknown)}. GET /v2/nodes lists them.")
    if not found:
        raise InvalidRolloutError("nodes: must name at least one node, or be left out for all")
    return [found[name] for name in dict.fromkeys(request.nodes)]


def _schedules(uid: str, request: RolloutRequest, nodes: Sequence[Node]) -> list[Schedule]:
    content: dict[str, str] = {}
    if request.action == Action.INSTALL:
        content = {each.platform: each.content_sha256 for each in builds(request.module_name, request.version)}
    known = dict(Liveness.objects.filter(node__in=[each.name for each in nodes]).values_list("node", "generations"))
    return [
        Schedule(
            rollout=uid,
            node=node.name,
            module_name=request.module_name,
            version=request.version,
            action=request.action,
            activation=request.activation,
            content_sha256=content.get(node.platform, ""),
            ordinal=ordinal,
            known_generation=known.get(node.name, {}).get(request.module_name, 0),
            supersede=request.supersede,
            skip=_reason_to_skip(request, node, content),
        )
        for ordinal, node in enumerate(nodes)
    ]


def _reason_to_skip(request: RolloutRequest, node: Node, content: Mapping[str, str]) -> tuple[Reason, str] | None:
    if node.draining:
        return Reason.NODE_DRAINING, f"{node.name} is draining; activate it and retry."
    if request.action == Action.INSTALL and node.platform not in content:
        there = ", ".join(sorted(content))
        return Reason.INCOMPATIBLE_ARCH, f"{node.name} is {node.platform}; there are builds for {there}."
    return None


def _placements(commands: Iterable[PlacementCommand]) -> list[Append]:
    """What to append to the placement streams, in a constant number of queries per 500 nodes."""
    by_stream = {_stream_of(command): command for command in commands}
    states = load_states(list(by_stream), PLACEMENT)
    changes = [
        states[stream].append(PLACEMENT.decide(states[stream].state, command)) for stream, command in by_stream.items()
    ]
    return [each for each in changes if each.events]


def _stream_of(command: PlacementCommand) -> str:
    if isinstance(command, RecordReport):
        return placement_stream(command.report.node, command.report.module_name)
    return placement_stream(command.node, command.module_name)


def abort_rollout(uid: str) -> None:
    """What has not been released is canceled; what has, runs to its end.

    Raises: `RolloutNotFoundError`, `RolloutFinalError`.
    """
    transact(rollout_stream(uid), ROLLOUT, Abort(rollout=uid))
    advance(uid)


def retry_rollout(uid: str) -> str:
    """The rollout in which the nodes that failed are tried again: the same, or a new one if it has ended.

    Raises: `RolloutNotFoundError`, `NothingToRetryError`, `RolloutInProgressError`.
    """
    started = _started(uid)
    nodes = tuple(selectors.failed_nodes(uid))
    if not nodes:
        raise NothingToRetryError
    if load_state(rollout_stream(uid), ROLLOUT).state.phase.is_final:
        return start_rollout(
            RolloutRequest(
                action=started.action,
                module_name=started.module_name,
                version=started.version,
                activation=started.activation,
                nodes=nodes,
                strategy=started.strategy,
                origin=started.origin,
                retry_of=uid,
                purge=started.purge,
            )
        )

    @retry_on_conflict
    def attempt() -> None:
        loaded = load_state(rollout_stream(uid), ROLLOUT)
        retries = [Retry(rollout=uid, node=node, module_name=started.module_name) for node in nodes]
        events = ROLLOUT.decide(loaded.state, RetryNodes(rollout=uid, nodes=nodes))
        append(loaded.append(events), *_placements(retries))

    attempt()
    return uid


def _started(uid: str) -> RolloutStarted:
    started = load_state(rollout_stream(uid), ROLLOUT).state.started
    if started is None:
        raise RolloutNotFoundError
    return started


def label_node(name: str, labels: dict[str, str]) -> None:
    """Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, LabelNode(node=name, labels=labels))


def drain_node(name: str) -> None:
    """It gets nothing new. Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, DrainNode(node=name))


def activate_node(name: str) -> None:
    """Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, ActivateNode(node=name))
    advance_all(selectors.unfinished_rollouts_of(name))


def decommission_node(name: str) -> None:
    """It leaves the fleet, and every rollout that still counts on it goes on without it. Raises: `NodeNotFoundError`."""
    transact(node_stream(name), NODE, DecommissionNode(node=name))
    rollouts = selectors.unfinished_rollouts_of(name)

    @retry_on_conflict
    def attempt() -> None:
        ends = [
            End(
                rollout=operation.rollout,
                node=name,
                module_name=operation.module_name,
                phase=Phase.CANCELED if operation.phase == Phase.SCHEDULED else Phase.FAILED,
                reason=Reason.NODE_DECOMMISSIONED,
                message=f"{name} has left the fleet.",
            )
            for operation in selectors.unfinished_operations_of(name)
        ]
        append(*_placements(ends))

    attempt()
    advance_all(rollouts)


# --- Moving on --------------------------------------------------------------------------------------------------------


def advance(uid: str) -> None:
    """Release, cancel and end what is due. May run any number of times, in any number of processes at once."""
    with acting_as("system"):
        while _advance_once(uid):
            pass


def advance_all(uids: Iterable[str]) -> None:
    for uid in uids:
        advance(uid)


@retry_on_conflict
def _advance_once(uid: str) -> bool:
    loaded = load_state(rollout_stream(uid), ROLLOUT)
    started = loaded.state.started
    if started is None or loaded.state.phase.is_final:
        return False
    aborting = loaded.state.phase == RolloutPhase.ABORTING
    fleet = selectors.fleet_of(uid, limit=0 if aborting else started.strategy.max_parallel)
    events = ROLLOUT.decide(loaded.state, Advance(rollout=uid, fleet=fleet))
    appends = [loaded.append(events)]
    if aborting:
        appends += _placements(_cancellations(uid, started.module_name))
    for event in events:
        match event:
            case NodesReleased():
                appends += _placements(
                    Release(rollout=uid, node=node, module_name=started.module_name) for node in event.nodes
                )
            case RolloutFinished(phase=RolloutPhase.SUCCEEDED) if started.purge:
                appends += _purge(started)
    return bool(append(*appends))


def _cancellations(uid: str, module_name: str) -> list[End]:
    return [
        End(rollout=uid, node=node, module_name=module_name, phase=Phase.CANCELED, reason=Reason.MANUAL)
        for node in selectors.scheduled_nodes(uid)
    ]


def _purge(started: RolloutStarted) -> list[Append]:
    """Deletion of the module object and the artifact, whichever are still there; not while a node was skipped and has
    them: one that is draining."""
    name, version = started.module_name, started.version
    if selectors.users_of(name, version):
        return []
    return [artifact_deletion(name, version), module_purged(module_uid(name, version))]


# --- What agents say --------------------------------------------------------------------------------------------------


def record_reports(bodies: Sequence[Any]) -> None:
    """Record a batch of reports in one transaction, then move their rollouts on. Reports may come more than once."""
    reports = [report for body in bodies if (report := _parsed(Report, body)) is not None]
    if not reports:
        return
    try:
        _record(reports)
    except ConcurrencyError:
        for report in reports:
            _record_one(report)
    advance_all(dict.fromkeys(report.rollout for report in reports))


def _parsed(kind: type[Any], body: Any) -> Any:
    try:
        return from_json(kind, body)
    except msgspec.ValidationError as error:
        logger.warning("dropped a malformed %s: %s", kind.__name__, error)
        return None


@retry_on_conflict
def _record_one(report: Report) -> None:
    _record([report])


def _record(reports: Sequence[Report]) -> None:
    placements = load_states([placement_stream(each.node, each.module_name) for each in reports], PLACEMENT)
    nodes = {each.node: load_state(node_stream(each.node), NODE) for each in reports if each.inventory is not None}
    changes: dict[str, tuple[Loaded[Any], list[object]]] = {}
    for report in reports:
        if report.inventory is not None:
            loaded = nodes[report.node]
            _add(changes, NODE, loaded, RecordInventory(node=report.node, inventory=report.inventory))
        _add(
            changes,
            PLACEMENT,
            placements[placement_stream(report.node, report.module_name)],
            RecordReport(report=report),
        )
    with acting_as(reports[0].node if len({each.node for each in reports}) == 1 else "agents"):
        append(*(loaded.append(events) for loaded, events in changes.values() if events))


def _add(
    changes: dict[str, tuple[Loaded[Any], list[object]]],
    decider: Decider[Any, Any],
    loaded: Loaded[Any],
    command: object,
) -> None:
    """Decide on the state that the batch has come to, and keep the events with the version that was loaded."""
    _, events = changes.setdefault(loaded.stream, (loaded, []))
    events.extend(decider.decide(decider.fold(events, loaded.state), command))


def record_beats(bodies: Sequence[Any]) -> None:
    """Note when the nodes were last heard of; record as events only what has changed with them."""
    beats = {beat.node: beat for body in bodies if (beat := _parsed(Beat, body)) is not None}
    if not beats:
        return
    hellos = {beat.node for body in bodies if (beat := _parsed(Beat, body)) is not None and beat.hello}
    changed = [_record_beat(beat, hello=beat.node in hellos) for beat in beats.values()]
    now = database_now()
    Liveness.objects.bulk_create(
        (
            Liveness(
                node=beat.node,
                last_seen=now,
                hello_at=now if beat.node in hellos else None,
                interval_seconds=beat.interval_seconds,
                generations=beat.generations,
            )
            for beat in beats.values()
        ),
        update_conflicts=True,
        unique_fields=["node"],
        update_fields=["last_seen", "interval_seconds", "generations"],
    )
    if hellos:
        Liveness.objects.filter(node__in=hellos).update(hello_at=now)
    for name in changed:
        if name is not None:
            advance_all(selectors.unfinished_rollouts_of(name))


def _record_beat(beat: Beat, *, hello: bool) -> str | None:
    """The node's name if anything has changed with it."""

    @retry_on_conflict
    def attempt() -> str | None:
        loaded = load_state(node_stream(beat.node), NODE)
        command = RecordBeat(node=beat.node, hello=hello, profile=beat.profile, inventory=beat.inventory)
        return beat.node if append(loaded.append(NODE.decide(loaded.state, command))) else None

    with acting_as(beat.node):
        return attempt()


# --- What time brings -------------------------------------------------------------------------------------------------


def declare_silent_nodes_offline() -> list[str]:
    """Names of the nodes that are offline from now on. Gives back what they had not started."""
    now = database_now()
    online = Node.objects.filter(online=True).values("name")
    silent = [
        each.node
        for each in Liveness.objects.filter(node__in=online)
        if each.last_seen + timedelta(seconds=MISSED_BEATS * each.interval_seconds) < now
    ]
    for name in silent:
        _declare_offline(name)
        advance_all(selectors.unfinished_rollouts_of(name))
    return silent


@retry_on_conflict
def _declare_offline(name: str) -> None:
    loaded = load_state(node_stream(name), NODE)
    given_back = [
        GiveBack(node=name, module_name=operation.module_name)
        for operation in selectors.unfinished_operations_of(name)
        if operation.phase == Phase.QUEUED
    ]
    append(loaded.append(NODE.decide(loaded.state, DeclareOffline(node=name))), *_placements(given_back))


def end_overdue_operations() -> int:
    """How many operations were timed out: released, and not ended by their deadline."""
    overdue = selectors.overdue_operations(database_now())
    for operation in overdue:
        end = End(
            rollout=operation.rollout,
            node=operation.node,
            module_name=operation.module_name,
            phase=Phase.TIMED_OUT,
            reason=Reason.NODE_DEADLINE,
            message=f"{operation.node} did not finish in time; it was last {operation.phase}.",
        )
        transact(placement_stream(operation.node, operation.module_name), PLACEMENT, end)
    advance_all(dict.fromkeys(operation.rollout for operation in overdue))
    return len(overdue)


def longest_silence() -> float:
    """Seconds after which any node that was heard of would be offline."""
    longest = Liveness.objects.aggregate(longest=Max("interval_seconds"))["longest"] or 0.0
    return MISSED_BEATS * float(longest)
