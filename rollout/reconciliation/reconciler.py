"""Brings nodes to what is wanted of them: late joiners, nodes that come back, drift.

The rules are in `docs/reference/desired-state.md`. May run any number of times, in any number of processes at once:
nothing is done on a placement that has changed since the look, and one has one live operation at most.
"""

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Max

from accounts.events import CLUSTER_STREAM
from accounts.selectors import drift_is_corrected
from api.errors import ApiError
from artifacts_app.selectors import artifact_documents
from eventstore import (
    Append,
    Batch,
    Condition,
    acting_as,
    append,
    database_now,
    head,
    load_states,
    retry_on_conflict,
    snapshot,
    stale_projections,
)
from rollout.domain.errors import RolloutInProgressError
from rollout.domain.fleet.events import FLEET_STREAM
from rollout.domain.node.decider import NODE, EndDrift, NodePhase, RecordDrift
from rollout.domain.node.events import NodeDrifted, NodeDriftEnded, node_stream
from rollout.domain.placement.events import placement_stream
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.events import Origin
from rollout.domain.strategy import OnFailure, Strategy
from rollout.messages import Action, Activation, Reason
from rollout.models import Liveness, NodeModule
from rollout.projections.nodes import ABSENT
from rollout.queries.freeze import current_freeze
from rollout.queries.rollouts import unfinished_rollouts
from rollout.reconciliation import desired_state
from rollout.reconciliation.desired_state import DifferingModule, MissedTarget, UndoneOperation
from rollout.services.start import start_unless

logger = logging.getLogger(__name__)

RECONCILER = "system:reconciler"
#: Least time between two looks, seconds.
LOOK_SECONDS = 0.5
#: How long the second operation on a module of a node waits after the first; it doubles with each one more, seconds.
BACKOFF_SECONDS = 30.0
LONGEST_BACKOFF_SECONDS = 3600.0
#: Operations that ended longer ago do not count for that, seconds.
COUNTED_SECONDS = 3600.0
#: One wave that goes on whatever fails, so that it never waits for a person.
STRATEGY = Strategy(canary=0, max_parallel=10, max_failures="100%", on_failure=OnFailure.ABORT)
#: What may be gone once the node has started again or is back. Everything else is permanent: the module, the node's
#: configuration or a person has to change first, and trying again might hurt the server.
TRANSIENT = frozenset(
    {
        Reason.FETCH_FAILED,
        Reason.IO_ERROR,
        Reason.SERVER_UNREACHABLE,
        Reason.STALE_GENERATION,
        Reason.AGENT_ERROR,
        Reason.NODE_UNREACHABLE,
        Reason.NODE_DEADLINE,
        Reason.PROGRESS_DEADLINE,
    }
)
#: Of an operation that was never released: what says nothing against another one, which is judged anew.
_JUDGED_ANEW = TRANSIENT | {
    Reason.NODE_DRAINING,
    Reason.INCOMPATIBLE_ARCH,
    Reason.INCOMPATIBLE_OS,
    Reason.MISSING_DEPENDENCY,
    Reason.NEWER_ROLLOUT,
    Reason.NODE_DECOMMISSIONED,
}
#: The node was not even asked: it need not start again first.
_NEVER_SENT = frozenset({Reason.PROGRESS_DEADLINE})
#: A node and a module.
Place = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What nodes are to be asked for; those with the same one share a rollout."""

    action: Action
    module_name: str
    version: int
    activation: Activation
    undoes: int | None = None


class Reconciler:
    """Looks when something may have changed: the log has grown, an agent has started, or a wait is over. Never while a
    projection waits for its rebuild: its rows would name work that is not due."""

    def __init__(self) -> None:
        self._is_fresh = False
        self._not_before = 0.0
        self._seen: tuple[int, datetime | None] | None = None
        self._due: datetime | None = None

    def look(self) -> None:
        if time.monotonic() < self._not_before:
            return
        self._not_before = time.monotonic() + LOOK_SECONDS
        self._is_fresh = self._is_fresh or not stale_projections()
        if not self._is_fresh:
            return
        seen = (head(), Liveness.objects.aggregate(newest=Max("hello_at"))["newest"])
        is_due = self._due is not None and self._due <= database_now()
        if seen != self._seen or is_due:
            self._due = reconcile()
            self._seen = seen


def reconcile() -> datetime | None:
    """Record what has drifted, and start what is due. When to look again though nothing has happened, if ever."""
    with acting_as(RECONCILER):
        return _reconcile()


@retry_on_conflict
def _reconcile() -> datetime | None:
    """What was recorded and started before another writer was first stays so: the next attempt finds it done."""
    with snapshot():
        after = head()
        standing = _standing()
        changes = _drift_changes(standing)
        work, wake_at = _work(standing)
    # A release in between would make drift of what is being put right.
    unchanged = Condition(after=after, streams=_placements(standing), event_types=(NodeDrifted, NodeDriftEnded))
    append(*changes, unless=[unchanged])
    for intent, nodes in work.items():
        _start(intent, nodes, after)
    return wake_at


# --- How the fleet stands ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """Of nodes that are online and not draining; of `missed`, `drifted` and `undone` no operation is unfinished.

    `drifted`: modules that are not as they are to be, after an operation that succeeded (or none). `undone`: operations
    that did not succeed. `open_drifts`: node, module and version of what was recorded; `differing`: all such that are
    as they were recorded or have changed, but are not as they are to be.
    """

    missed: dict[Place, MissedTarget]
    drifted: list[DifferingModule]
    undone: list[UndoneOperation]
    open_drifts: list[tuple[str, str, int]]
    differing: frozenset[tuple[str, str, int]]


def _standing() -> _Standing:
    """Four queries, however many nodes and modules there are."""
    missed = {(each.node, each.module_name): each for each in desired_state.missed_targets()}
    differing = desired_state.differing_modules()
    idle = [each for each in differing if not each.is_busy and _place(each.row) not in missed]
    return _Standing(
        missed=missed,
        drifted=[each for each in idle if not each.is_undone],
        undone=[
            each for each in desired_state.undone_operations() if (each.row.node, each.row.module_name) not in missed
        ],
        open_drifts=desired_state.open_drifts(),
        differing=frozenset(_version(each.row) for each in differing if each.row.drifted_at is not None),
    )


def _placements(standing: _Standing) -> list[str]:
    """The streams of what has drifted, and of what has not any more."""
    over = {(node, module_name) for node, module_name, _ in standing.open_drifts}
    return [placement_stream(*place) for place in sorted(over | {_place(each.row) for each in standing.drifted})]


def _place(row: NodeModule) -> Place:
    return row.node, row.module_name


def _version(row: NodeModule) -> tuple[str, str, int]:
    return row.node, row.module_name, row.version


# --- Drift ------------------------------------------------------------------------------------------------------------


def _drift_changes(standing: _Standing) -> list[Append]:
    """What to record of drift that is new or has changed, and of drift that is over."""
    over = [each for each in standing.open_drifts if each not in standing.differing]
    commands: list[RecordDrift | EndDrift] = [
        EndDrift(node=node, module_name=module_name, version=version) for node, module_name, version in over
    ]
    commands += [_drift_of(each.row) for each in standing.drifted]
    states = load_states(sorted({node_stream(each.node) for each in commands}), NODE)
    changes = Batch()
    for command in commands:
        loaded = states[node_stream(command.node)]
        if loaded.state.phase == NodePhase.ONLINE:
            changes.decide(loaded, NODE, command, loaded.leads_to(RECONCILER))
    return changes.appends()


def _drift_of(row: NodeModule) -> RecordDrift:
    return RecordDrift(
        node=row.node,
        module_name=row.module_name,
        version=row.version,
        desired=row.desired,
        observed=row.observed,
        content_sha256=row.content_sha256,
    )


# --- What is to be done -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    node: str
    platforms: tuple[str, ...]
    intent: Intent

    @property
    def place(self) -> Place:
        return self.node, self.intent.module_name


def _work(standing: _Standing) -> tuple[dict[Intent, list[str]], datetime | None]:
    """Nodes by what is to be asked of them now, and when the first of those is due that have to wait."""
    tasks = {each.place: each for each in [*_corrections(standing), *_repetitions(standing), *_missed(standing)]}
    if not tasks or current_freeze():
        return {}, None
    now = database_now()
    waits = _waits(tasks, now)
    work: dict[Intent, list[str]] = {}
    for task in _with_a_build(tasks.values()):
        if waits.get(task.place, now) <= now:
            work.setdefault(task.intent, []).append(task.node)
    return work, min((at for at in waits.values() if at > now), default=None)


def _missed(standing: _Standing) -> list[_Task]:
    """What the cluster's target asks for, but for what a person or a permanent reason has kept from a node before."""
    if not standing.missed:
        return []
    kept = {
        (each.node, each.module_name, each.version, each.action)
        for each in desired_state.newest_unreleased_operations(standing.missed)
        if each.reason not in _JUDGED_ANEW
    }
    return [
        _Task(node=each.node, platforms=each.platforms, intent=_intent_of(each))
        for each in standing.missed.values()
        if (each.node, each.module_name, each.version, each.action) not in kept
    ]


def _intent_of(missed: MissedTarget) -> Intent:
    return Intent(
        action=missed.action,
        module_name=missed.module_name,
        version=missed.version,
        activation=missed.activation,
    )


def _repetitions(standing: _Standing) -> list[_Task]:
    """What did not succeed for a reason that may be gone, on nodes that have started or come back since."""
    passing = [each for each in standing.undone if each.row.reason in TRANSIENT and not each.row.cancel_requested_at]
    if not passing:
        return []
    # A rollout under way may still wait for a person, who decides.
    undecided = set(unfinished_rollouts())
    return [
        _Task(node=each.row.node, platforms=each.platforms, intent=_same_again(each))
        for each in passing
        if each.row.rollout not in undecided and (each.row.reason in _NEVER_SENT or _has_been_heard_since(each))
    ]


def _same_again(undone: UndoneOperation) -> Intent:
    row = undone.row
    return Intent(
        action=Action(row.action),
        module_name=row.module_name,
        version=row.version,
        activation=Activation(row.activation),
        undoes=row.undoes,
    )


def _has_been_heard_since(undone: UndoneOperation) -> bool:
    """Whether the node has started or come back after it."""
    ended = undone.row.finished_at
    return undone.heard_at is not None and ended is not None and undone.heard_at > ended


def _corrections(standing: _Standing) -> list[_Task]:
    """Modules that nobody wants stay where they are: a person has put them there."""
    correctable = [each for each in standing.drifted if each.row.desired != ABSENT]
    return _tasks(correctable) if correctable and drift_is_corrected() else []


def _tasks(modules: Iterable[DifferingModule]) -> list[_Task]:
    """What makes the modules as they are to be; one step at a time on each node, what is to be loaded before all."""
    tasks: dict[Place, _Task] = {}
    for each in sorted(modules, key=lambda each: each.row.desired, reverse=True):
        row = each.row
        if row.desired == ABSENT:
            intent = Intent(
                action=Action.REMOVE, module_name=row.module_name, version=row.version, activation=Activation.LOAD
            )
        elif row.desired == Activation.FILES and row.content_sha256 == row.desired_sha256:
            continue  # loaded though only its files are wanted: putting them in place unloads nothing
        else:
            intent = Intent(
                action=Action.INSTALL,
                module_name=row.module_name,
                version=row.version,
                activation=Activation(row.desired),
            )
        tasks.setdefault(_place(row), _Task(node=row.node, platforms=each.platforms, intent=intent))
    return list(tasks.values())


def _with_a_build(tasks: Collection[_Task]) -> list[_Task]:
    """Without installations on nodes for which there is no build, or none any more."""
    installed = {(each.intent.module_name, each.intent.version) for each in tasks if _brings(each)}
    there = {
        (document["module_name"], document["version"], build["platform"])
        for document in (artifact_documents(installed) if installed else ())
        for build in document["builds"]
    }
    return [
        each
        for each in tasks
        if not _brings(each)
        or any((each.intent.module_name, each.intent.version, platform) in there for platform in each.platforms)
    ]


def _brings(task: _Task) -> bool:
    return task.intent.action == Action.INSTALL


def _waits(places: Collection[Place], now: datetime) -> dict[Place, datetime]:
    """Until when nothing is started on a module of a node, by how often that was done lately."""
    lately = desired_state.reconciler_operations(places, since=now - timedelta(seconds=COUNTED_SECONDS))
    return {
        place: newest + timedelta(seconds=min(BACKOFF_SECONDS * 2.0 ** (count - 1), LONGEST_BACKOFF_SECONDS))
        for place, (count, newest) in lately.items()
    }


def _newest_event_of(nodes: Sequence[str]) -> UUID | None:
    """What has made the reconciler look at them: that one of them has joined, is back or differs."""
    states = load_states([node_stream(name) for name in nodes], NODE)
    return max(states.values(), key=lambda each: each.position).event_id


def _start(intent: Intent, nodes: Sequence[str], after: int) -> None:
    """A rollout of its own, which supersedes nothing: a node on which another one is under way is left for later.

    Not if anything was done there, or the fleet was frozen, after the position of the look: a rollout of a person's may
    have begun and ended since. Raises: `ConcurrencyError`.
    """
    request = RolloutRequest(
        action=intent.action,
        module_name=intent.module_name,
        version=intent.version,
        activation=intent.activation,
        nodes=tuple(nodes),
        strategy=STRATEGY,
        origin=Origin.RECONCILER,
        undoes=intent.undoes,
        yields=True,
    )
    places = [placement_stream(node, intent.module_name) for node in nodes]
    try:
        with acting_as(RECONCILER, because_of=_newest_event_of(nodes)):
            start_unless(request, Condition(after=after, streams=[*places, FLEET_STREAM, CLUSTER_STREAM]))
    except ApiError as error:  # what is refused on one node keeps no other from it
        half = len(nodes) // 2
        for some in (nodes[:half], nodes[half:]) if half else ():
            _start(intent, some, after)
        if not half and not isinstance(error, RolloutInProgressError):
            logger.warning("not brought to %s: %s %s: %s", nodes[0], intent.module_name, intent.version, error)
