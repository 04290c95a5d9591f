"""How a rollout stands, as `rollout.domain.rollout.step` wants to know it: a few queries, however many nodes it has."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Exists, Min, OuterRef, Q, QuerySet, Subquery

from eventstore import Metadata, newest_event
from rollout.domain.node.decider import NodePhase
from rollout.domain.placement.decider import PlacementState, kept_by, to_undo
from rollout.domain.rollout.decider import Fleet, Needs, Ready, RolloutState, Tally
from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES, LeftAlone, RolloutPhase
from rollout.domain.strategy import Offline
from rollout.messages import Action, Phase, Reason
from rollout.models import FleetFreeze, Node, NodeModule, Operation, Placement, Rollout
from rollout.projections.counters import COUNTERS
from rollout.projections.nodes import decoded
from rollout.queries.freeze import newest_freeze
from rollout.queries.operations import IN_HAND

_FAILED = (Phase.FAILED, Phase.TIMED_OUT)


#: The actor of what the rules of a rollout bring about, in whichever process.
RELAY = "system:relay"


def cause_of(uid: str, nodes: Collection[str]) -> Metadata:
    """What leads to the rollout's next step, which is about these nodes: the newest of its own events, of the rollouts
    that it needs, of the freeze, and of those by which the nodes came to their phases. At most five queries."""
    row = Rollout.objects.only("event_id", "correlation_id", "requested_by", "needs").get(uid=uid)
    phases = Node.objects.filter(name__in=nodes).order_by("-phase_position")
    others: list[QuerySet[Any, Any]] = [
        phases.values_list("phase_event_id", flat=True)[:1],
    ]
    if row.needs:
        others.append(Rollout.objects.filter(uid__in=row.needs).values_list("event_id", flat=True))
    freeze = newest_freeze()
    found = {row.event_id, freeze and freeze.event_id, *(event_id for each in others for event_id in each)}
    return row.leads_to(RELAY).because_of(newest_event(found - {None}))


def fleet_of(uid: str, state: RolloutState, *, now: datetime) -> Fleet:
    """How the operations of the rollout in `state` stand at `now`."""
    row = Rollout.objects.get(uid=uid)
    open_ = _open_operations(uid, state)
    counts = {_phase_counted(name): getattr(row, name) for name in COUNTERS}
    parallel = state.strategy.parallel(state.nodes)
    keeps_health, releases = state.strategy.kept_healthy(state.nodes) > 0, state.phase in _RELEASING
    ending = state.phase in {RolloutPhase.ABORTING, RolloutPhase.ROLLING_BACK}
    is_over = row.scheduled + row.queued + row.running == 0
    freeze = newest_freeze()
    begins_to_restore = state.phase == RolloutPhase.ROLLING_BACK and is_over and not state.restoring
    restored = restoration_of(uid) if begins_to_restore else Restoration()
    return Fleet(
        now=now,
        counts=counts,
        waves=tallies(row, _lost(uid, row)),
        ready=_ready(open_, now, limit=parallel, failed_first=keeps_health) if row.scheduled and releases else (),
        offline=_offline(open_, state) if row.scheduled else (),
        retriable=_retriable(open_, state) if row.failed + row.timed_out else (),
        healthy=_healthy(uid) if keeps_health else 0,
        to_restore=restored.nodes,
        left_alone=restored.left_alone,
        scheduled=_named(_scheduled(uid)) if ending and row.scheduled else (),
        cancelable=_named(_in_hand(uid).exclude(phase=Phase.CANCELING)) if ending and not is_over else (),
        superseded=_canceled(uid, Reason.NEWER_ROLLOUT, state) if state.restoring and is_over else row.superseded,
        gone=_canceled(uid, Reason.NODE_DECOMMISSIONED, state) if is_over and row.canceled else 0,
        called_off=_canceled(uid, Reason.MANUAL, state) if is_over and row.canceled else 0,
        unrestored=row.unrestored,
        progressed_at=_clock_start(row, freeze),
        wake_at=_wakes(uid, now) if row.retries else None,
        needs=_needs(row.needs) if state.wave < 0 else Needs.MET,
        frozen=freeze is not None and freeze.frozen,
    )


_RELEASING = frozenset({RolloutPhase.PLANNED, RolloutPhase.SCHEDULED, RolloutPhase.RUNNING, RolloutPhase.ROLLING_BACK})


def tallies(row: Rollout, lost: Sequence[int]) -> tuple[Tally, ...]:
    return tuple(
        Tally(
            total=wave["total"],
            ended=wave["total"] - wave["scheduled"] - wave["queued"] - wave["running"],
            failed=wave["failed"] + wave["timed_out"],
            lost=lost[number],
        )
        for number, wave in enumerate(row.waves)
    )


def bad_nodes(uid: str) -> tuple[int, ...]:
    """How many nodes of each wave have failed or are lost."""
    row = Rollout.objects.get(uid=uid)
    return tuple(each.bad for each in tallies(row, _lost(uid, row)))


def _phase_counted(counter: str) -> Phase:
    return Phase.FETCHING if counter == "running" else Phase(counter)


def _open_operations(uid: str, state: RolloutState) -> QuerySet[Operation]:
    """Those that may be released: of the waves up to the open one, or all once what was done is taken back."""
    rows = Operation.objects.filter(rollout=uid)
    return rows if state.restoring else rows.filter(wave__lte=state.open_wave)


def _scheduled(uid: str) -> QuerySet[Operation]:
    return Operation.objects.filter(rollout=uid, phase=Phase.SCHEDULED)


def _in_hand(uid: str) -> QuerySet[Operation]:
    return Operation.objects.filter(rollout=uid, phase__in=IN_HAND)


def _named(rows: QuerySet[Operation]) -> tuple[str, ...]:
    return tuple(rows.order_by("ordinal").values_list("node", flat=True))


def _ready(rows: QuerySet[Operation], now: datetime, *, limit: int, failed_first: bool) -> tuple[Ready, ...]:
    """`limit` of those that may be released; enough of both kinds with `failed_first`, for which `min_healthy` may have
    room when it has none for others."""
    online = Node.objects.filter(phase=NodePhase.ONLINE).values("name")
    ready = rows.filter(Q(ready_at=None) | Q(ready_at__lte=now), phase=Phase.SCHEDULED, behind=False, node__in=online)
    order = ("healthy", "ordinal") if failed_first else ("ordinal",)
    return tuple(
        Ready(node=node, is_healthy=healthy)
        for node, healthy in ready.order_by(*order).values_list("node", "healthy")[:limit]
    )


def _offline(rows: QuerySet[Operation], state: RolloutState) -> tuple[str, ...]:
    if state.strategy.offline == Offline.WAIT and not state.restoring:
        return ()
    offline = Node.objects.filter(phase=NodePhase.OFFLINE).values("name")
    return _named(rows.filter(phase=Phase.SCHEDULED, node__in=offline))


def _retriable(rows: QuerySet[Operation], state: RolloutState) -> tuple[tuple[str, int], ...]:
    retries = state.strategy.retries
    if state.phase not in _RELEASING:
        return ()
    found = rows.filter(
        _untouched_since(), phase__in=_FAILED, attempt__lte=retries.limit, reason__in=retries.reasons
    ).filter(node__in=Node.objects.exclude(phase=NodePhase.DECOMMISSIONED).values("name"))
    if state.restoring:
        found = found.filter(rollback=True)
    return tuple(found.order_by("ordinal").values_list("node", "attempt"))


def _untouched_since() -> Q:
    """Nothing newer has been asked of that module on that node."""
    return ~Q(
        Exists(
            Operation.objects.filter(
                node=OuterRef("node"), module_name=OuterRef("module_name"), generation__gt=OuterRef("generation")
            )
        )
    )


def _healthy(uid: str) -> int:
    offline = Node.objects.filter(online=False).values("name")
    rows = Operation.objects.filter(rollout=uid, wave__gte=0, healthy=True).exclude(phase__in=IN_HAND)
    return rows.exclude(node__in=offline).count()


def _lost(uid: str, row: Rollout) -> list[int]:
    """By wave, the nodes that have succeeded and are offline or have drifted since."""
    lost = [0] * len(row.waves)
    if not row.succeeded:
        return lost
    gone = list(Node.objects.filter(phase=NodePhase.OFFLINE).values_list("name", flat=True))
    if row.action == Action.INSTALL:
        drifted = NodeModule.objects.filter(module_name=row.module_name, version=row.version, drifted_at__isnull=False)
        gone += drifted.values_list("node", flat=True)
    if gone:
        rows = Operation.objects.filter(rollout=uid, node__in=set(gone), phase=Phase.SUCCEEDED, wave__gte=0)
        for wave in rows.values_list("wave", flat=True):
            lost[wave] += 1
    return lost


def _canceled(uid: str, reason: Reason, state: RolloutState) -> int:
    """How many operations were canceled for this reason; of those that give back what was there, once there are any."""
    rows = Operation.objects.filter(rollout=uid, phase=Phase.CANCELED, reason=reason)
    return (rows.filter(rollback=True) if state.restoring else rows).count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """What a rollback does: nodes that get back what they had, in the rollout's order, and those that stay as they are."""

    nodes: tuple[str, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()


def restoration_of(uid: str) -> Restoration:
    """What a rollback of the rollout would do now, as the deciders of its placements say. One query."""
    gone = Node.objects.filter(phase=NodePhase.DECOMMISSIONED).values("name")
    place = Placement.objects.filter(node=OuterRef("node"), module_name=OuterRef("module_name"))
    rows = Operation.objects.filter(rollout=uid, touched=True, rollback=False).exclude(phase=Phase.SKIPPED, attempt=1)
    found = rows.exclude(node__in=gone).order_by("ordinal").annotate(state=Subquery(place.values("state")[:1]))
    states = found.values_list("node", "generation", "state")
    return restoration(uid, ((node, generation, decoded(state)) for node, generation, state in states))


def restoration(uid: str, places: Iterable[tuple[str, int, PlacementState]]) -> Restoration:
    """The same for these nodes, each with the generation of the rollout's operation and the state of its placement."""
    nodes: list[str] = []
    left: dict[str, list[str]] = {}
    for node, generation, state in places:
        if to_undo(state, uid) is not None:
            nodes.append(node)
        elif newer := kept_by(state, uid, generation):
            left.setdefault(newer, []).append(node)
    left_alone = tuple(LeftAlone(rollout=newer, nodes=tuple(names)) for newer, names in left.items())
    return Restoration(nodes=tuple(nodes), left_alone=left_alone)


def _clock_start(row: Rollout, freeze: FleetFreeze | None) -> datetime | None:
    """A thaw starts the clock of the progress deadline anew."""
    if row.progressed_at is None or freeze is None or freeze.thawed_at is None:
        return row.progressed_at
    return max(row.progressed_at, freeze.thawed_at)


def _wakes(uid: str, now: datetime) -> datetime | None:
    first: datetime | None = _scheduled(uid).filter(ready_at__gt=now).aggregate(first=Min("ready_at"))["first"]
    return first


def _needs(uids: Sequence[str]) -> Needs:
    if not uids:
        return Needs.MET
    phases = list(Rollout.objects.filter(uid__in=uids).values_list("phase", flat=True))
    if all(phase == RolloutPhase.SUCCEEDED for phase in phases):
        return Needs.MET
    is_failed = any(phase in FINAL_ROLLOUT_PHASES and phase != RolloutPhase.SUCCEEDED for phase in phases)
    return Needs.FAILED if is_failed else Needs.PENDING
