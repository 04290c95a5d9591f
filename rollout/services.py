"""Starts, steers and moves on rollouts; takes in what agents say. Everything here may be repeated."""

import logging
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import msgspec
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Max

from artifacts_app.selectors import builds
from artifacts_app.services import artifact_deletion
from eventstore.context import acting_as
from eventstore.decider import Decider
from eventstore.store import Append, append, database_now
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
    OperationScheduled,
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
from rollout.models import Liveness, Node, Operation

logger = logging.getLogger(__name__)

#: A node that has been silent for so many of its intervals is offline.
MISSED_BEATS = 3
#: Operations that are ended in one transaction.
ENDED_AT_ONCE = 500
#: A report's message is cut there, characters.
LONGEST_MESSAGE = 4000

Message = TypeVar("Message", Report, Beat)
Result = TypeVar("Result")


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
    """What to append to the placement streams, in a constant number of queries per 500 of them."""
    by_stream = [(_stream_of(command), command) for command in commands]
    states = load_states([stream for stream, _ in by_stream], PLACEMENT)
    changes: Changes = {}
    for stream, command in by_stream:
        _add(changes, PLACEMENT, states[stream], command)
    return _appends(changes)


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

    Nodes that have left the fleet since are not. Raises: `RolloutNotFoundError`, `NothingToRetryError`,
    `RolloutInProgressError`, `RolloutFinalError` while it is being aborted.
    """
    loaded = load_state(rollout_stream(uid), ROLLOUT)
    started = loaded.state.started
    if started is None:
        raise RolloutNotFoundError
    if not loaded.state.phase.is_final:
        _retry_in_place(uid, started.module_name)
        return uid
    nodes = tuple(selectors.failed_nodes(uid))
    if not nodes:
        raise NothingToRetryError
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
def _retry_in_place(uid: str, module_name: str) -> None:
    loaded = load_state(rollout_stream(uid), ROLLOUT)
    nodes = selectors.failed_nodes(uid)
    retries = _placements(Retry(rollout=uid, node=node, module_name=module_name) for node in nodes)
    retried = tuple(event.node for each in retries for event in each.events if isinstance(event, OperationScheduled))
    events = ROLLOUT.decide(loaded.state, RetryNodes(rollout=uid, nodes=retried))
    if not events:
        raise NothingToRetryError
    append(loaded.append(events), *retries)


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
    rollouts = selectors.unfinished_rollouts_of(name)
    _decommission(name)
    advance_all(rollouts)


@retry_on_conflict
def _decommission(name: str) -> None:
    loaded = load_state(node_stream(name), NODE)
    events = NODE.decide(loaded.state, DecommissionNode(node=name))
    ends = _placements(_gone(each) for each in selectors.unfinished_operations_of(name))
    append(loaded.append(events), *ends)


def _gone(operation: Operation) -> End:
    return End(
        rollout=operation.rollout,
        node=operation.node,
        module_name=operation.module_name,
        phase=Phase.CANCELED if operation.phase == Phase.SCHEDULED else Phase.FAILED,
        reason=Reason.NODE_DECOMMISSIONED,
        message=f"{operation.node} has left the fleet.",
    )


# --- Moving on --------------------------------------------------------------------------------------------------------


def advance(uid: str) -> None:
    """Release, cancel and end what is due. May run any number of times, in any number of processes at once."""
    with acting_as("system"):
        while _advance_once(uid):
            pass


def advance_all(uids: Iterable[str]) -> None:
    """One that cannot move on keeps no other from it: the relay tries again."""
    for uid in uids:
        try:
            advance(uid)
        except Exception:
            logger.exception("rollout %s cannot move on", uid)


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
    reports = [_tidy(report) for report in _parsed(Report, bodies)]
    _all_or_each(_record, reports)
    advance_all(dict.fromkeys(report.rollout for report in reports))


def _parsed(kind: type[Message], bodies: Iterable[Any]) -> list[Message]:
    """Those that can be understood; the others are logged."""
    found: list[Message] = []
    for body in bodies:
        try:
            found.append(from_json(kind, body))
        except msgspec.ValidationError as error:
            logger.warning("dropped a malformed %s: %s", kind.__name__, error)
    return found


def _tidy(report: Report) -> Report:
    """Its message without what no database stores, and no longer than anybody reads."""
    message = report.message.replace("\0", "").encode(errors="replace").decode()
    return replace(report, message=message[:LONGEST_MESSAGE])


def _all_or_each(record: Callable[[Sequence[Message]], Result], messages: Sequence[Message]) -> list[Result]:
    """Record the messages together; if that fails one by one, so that a bad one keeps no other from being recorded.

    Raises: what says that the database is away; nothing of the batch may be acknowledged then.
    """
    if not messages:
        return []
    try:
        return [record(messages)]
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        if len(messages) == 1:
            logger.exception("dropped what cannot be recorded: %s", messages[0])
            return []
    return [result for message in messages for result in _all_or_each(record, [message])]


@retry_on_conflict
def _record(reports: Sequence[Report]) -> None:
    placements = load_states([placement_stream(each.node, each.module_name) for each in reports], PLACEMENT)
    nodes = load_states([node_stream(each.node) for each in reports if each.inventory is not None], NODE)
    changes: Changes = {}
    for report in reports:
        if report.inventory is not None:
            command = RecordInventory(node=report.node, inventory=report.inventory)
            _add(changes, NODE, nodes[node_stream(report.node)], command)
        _add(
            changes,
            PLACEMENT,
            placements[placement_stream(report.node, report.module_name)],
            RecordReport(report=report),
        )
    with acting_as(_actor(reports)):
        append(*_appends(changes))


def _actor(messages: Sequence[Report | Beat]) -> str:
    names = {each.node for each in messages}
    return names.pop() if len(names) == 1 else "agents"


#: What was loaded of each stream, and the events to append to it.
Changes = dict[str, tuple[Loaded[Any], list[object]]]


def _add(changes: Changes, decider: Decider[Any, Any], loaded: Loaded[Any], command: object) -> None:
    """Decide on the state that the batch has come to, and keep the events with the version that was loaded."""
    _, events = changes.setdefault(loaded.stream, (loaded, []))
    events.extend(decider.decide(decider.fold(events, loaded.state), command))


def _appends(changes: Changes) -> list[Append]:
    return [loaded.append(events) for loaded, events in changes.values() if events]


def record_beats(bodies: Sequence[Any]) -> bool:
    """Note when the nodes were last heard of; record as events only what has changed with them.

    Answers whether a node has started or changed, so that there may be something to send to it.
    """
    beats = _parsed(Beat, bodies)
    changed = [name for names in _all_or_each(_record_beats, beats) for name in names]
    advance_all(selectors.unfinished_rollouts_of(*changed))
    return bool(changed) or any(beat.hello for beat in beats)


@retry_on_conflict
def _record_beats(beats: Sequence[Beat]) -> list[str]:
    """Names of the nodes with which anything has changed. Two queries read what is known, however many there are."""
    newest = _newest(beats)
    known = selectors.known_nodes(newest)
    unlike = [beat for beat in newest.values() if not known[beat.node].is_as(beat)]
    states = load_states([node_stream(beat.node) for beat in unlike], NODE)
    changes: Changes = {}
    for beat in unlike:
        command = RecordBeat(node=beat.node, hello=beat.hello, profile=beat.profile, inventory=beat.inventory)
        _add(changes, NODE, states[node_stream(beat.node)], command)
    appends = _appends(changes)
    with transaction.atomic(), acting_as(_actor(unlike)):
        append(*appends)  # before the rows of Liveness are locked
        _note_life(newest.values())
    changed = {each.stream for each in appends}
    return [name for name in newest if node_stream(name) in changed]


def _newest(beats: Sequence[Beat]) -> dict[str, Beat]:
    """The newest beat of each node, a hello if any was, in the order of names: two workers that write the same rows in
    different orders would wait for each other."""
    newest: dict[str, Beat] = {}
    for beat in sorted(beats, key=lambda each: (each.node, each.inventory.sequence)):
        said_hello = beat.node in newest and newest[beat.node].hello
        newest[beat.node] = replace(beat, hello=beat.hello or said_hello)
    return newest


def _note_life(beats: Collection[Beat]) -> None:
    now = database_now()
    for hello in (True, False):
        Liveness.objects.bulk_create(
            (
                Liveness(
                    node=beat.node,
                    last_seen=now,
                    hello_at=now if hello else None,
                    interval_seconds=beat.interval_seconds,
                    generations=beat.generations,
                )
                for beat in beats
                if beat.hello is hello
            ),
            update_conflicts=True,
            unique_fields=["node"],
            update_fields=["last_seen", "interval_seconds", "generations", *(["hello_at"] if hello else [])],
        )


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
        with acting_as("system"):
            _declare_offline(name)
    advance_all(selectors.unfinished_rollouts_of(*silent))
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
    return _end_all(
        [
            End(
                rollout=operation.rollout,
                node=operation.node,
                module_name=operation.module_name,
                phase=Phase.TIMED_OUT,
                reason=Reason.NODE_DEADLINE,
                message=f"{operation.node} did not finish in time; it was last {operation.phase}.",
                attempt=operation.attempt,
            )
            for operation in selectors.overdue_operations(database_now())
        ]
    )


def end_operations_of_gone_nodes() -> int:
    """How many operations were ended that were scheduled on a node in the moment in which it left the fleet."""
    return _end_all([_gone(operation) for operation in selectors.operations_of_gone_nodes()])


def end_for_lack_of_a_build(operations: Iterable[Operation]) -> int:
    """How many operations were ended because the build that they were to bring is not there any more."""
    return _end_all(
        [
            End(
                rollout=operation.rollout,
                node=operation.node,
                module_name=operation.module_name,
                phase=Phase.FAILED,
                reason=Reason.FETCH_FAILED,
                message=f"The build of {operation.module_name} {operation.version} for {operation.node} is gone.",
                attempt=operation.attempt,
            )
            for operation in operations
        ]
    )


def _end_all(ends: Sequence[End]) -> int:
    @retry_on_conflict
    def attempt(some: Sequence[End]) -> int:
        return len(append(*_placements(some)))

    with acting_as("system"):
        ended = sum(attempt(ends[start : start + ENDED_AT_ONCE]) for start in range(0, len(ends), ENDED_AT_ONCE))
    advance_all(dict.fromkeys(end.rollout for end in ends))
    return ended


def longest_silence() -> float:
    """Seconds of silence after which any node that is online now would not be."""
    online = Node.objects.filter(online=True).values("name")
    longest = Liveness.objects.filter(node__in=online).aggregate(longest=Max("interval_seconds"))["longest"] or 0.0
    return MISSED_BEATS * float(longest)
