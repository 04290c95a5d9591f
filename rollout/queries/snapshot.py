"""The snapshot of a rollout by which `process.advance` decides its next step: a few queries, however many nodes."""

from collections.abc import Sequence
from datetime import datetime

from django.db.models import Exists, Min, Q, QuerySet

import decoding
from rollout.domain.node.health import WOULD_NOT_START
from rollout.domain.node.state import NodePhase
from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES, RolloutPhase, WavePhase
from rollout.domain.rollout.releasable import Releasable
from rollout.domain.rollout.snapshot import Needs, Snapshot, WaveCounts
from rollout.domain.rollout.state import RolloutState
from rollout.domain.strategy import Offline
from rollout.messages import Action, Phase, Reason, Way, WayBack, WayBackResult, Ways
from rollout.models import FleetFreeze, Node, Operation, Rollout
from rollout.projections.counters import COUNTERS
from rollout.queries.freeze import newest_freeze
from rollout.queries.harm import newest_restart
from rollout.queries.lost import lost_nodes
from rollout.queries.nodes import decommissioned_nodes
from rollout.queries.operations import IN_PROGRESS, newer_operations, newest_restart_of
from rollout.queries.restoration import Restoration, restoration_of
from rollout.queries.turns import CHANGES_SERVER, REPLACED_BY_RESTART, Facts, in_chunks, releasable

_FAILED = (Phase.FAILED, Phase.TIMED_OUT)
#: Nodes that are offline, or whose server cannot be used.
UNUSABLE = Q(online=False) | ~Q(degraded_reason="")


def snapshot_of(uid: str, state: RolloutState, *, now: datetime) -> Snapshot:
    """Return the snapshot of the rollout in `state` at `now`."""
    row = Rollout.objects.get(uid=uid)
    candidates = _open_operations(uid, state)
    counts = {_phase_counted(name): getattr(row, name) for name in COUNTERS}
    parallel = state.strategy.parallel(state.nodes)
    keeps_health, releases = state.strategy.kept_healthy(state.nodes) > 0, state.phase in _RELEASING
    ending = state.phase in {RolloutPhase.ABORTING, RolloutPhase.ROLLING_BACK}
    is_over = row.scheduled + row.queued + row.running == 0
    freeze = newest_freeze()
    begins_to_restore = state.phase == RolloutPhase.ROLLING_BACK and is_over and not state.restoring
    restored = restoration_of(uid) if begins_to_restore else Restoration()
    found, tries_way_back = Releasable(state.strategy, now, parallel), False
    if row.scheduled and releases:
        may_be_released = _may_be_released(now, repairs=not row.adopt)
        shows_way_back = may_replace_by_restart(row) and row.way_back is None
        if shows_way_back and (tries_way_back := _in_progress(uid).filter(way=Way.RESTART).exists()):
            may_be_released &= ~REPLACED_BY_RESTART
        later = _scheduled(uid).filter(may_be_released).exclude(wave__lte=state.open_wave)
        ready = _candidates(candidates.filter(may_be_released), failed_first=keeps_health)
        later = later.none() if state.restoring else later
        found = releasable(
            in_chunks(ready),
            lambda nodes: list(later.filter(node__in=nodes)),
            Facts(),
            state.strategy,
            now,
            limit=parallel,
            refuses_use=row.action == Action.REMOVE and not row.even_if_used,
            shows_way_back=shows_way_back,
        )
    return Snapshot(
        now=now,
        counts=counts,
        waves=wave_counts(row, _lost(row)),
        ready=tuple(found.ready),
        blocked=tuple(found.blocked),
        waits=tuple(found.waits),
        unfit=tuple(found.unfit),
        is_waiting=found.is_waiting,
        behind=_named(candidates.filter(phase=Phase.SCHEDULED, behind=True))
        if row.scheduled and releases and not (found.ready or row.queued or row.running)
        else (),
        offline=_offline(candidates | _scheduled(uid).filter(node__in=found.come_first), state)
        if row.scheduled
        else (),
        retriable=_retriable(Operation.objects.filter(rollout=uid), state) if row.failed + row.timed_out else (),
        healthy=_healthy(uid) if keeps_health else 0,
        to_restore=restored.nodes,
        unchanged=restored.unchanged,
        scheduled=_named(_scheduled(uid)) if ending and row.scheduled else (),
        cancelable=_named(_in_progress(uid).exclude(phase=Phase.CANCELING)) if ending and not is_over else (),
        superseded=_canceled(uid, Reason.NEWER_ROLLOUT, state) if state.restoring and is_over else row.superseded,
        decommissioned=_canceled(uid, Reason.NODE_DECOMMISSIONED, state) if is_over and row.canceled else 0,
        canceled_by_person=_canceled(uid, Reason.MANUAL, state) if is_over and row.canceled else 0,
        one_way=one_way_of(row, state),
        tries_way_back=tries_way_back,
        restarted_at=newest_restart(uid, state.wave) if state.wave_phase == WavePhase.SOAKING else None,
        unrestored=row.unrestored,
        progressed_at=_progressed_at(row, freeze, now),
        wake_at=_earlier(_next_ready_at(uid, now) if row.retries else None, found.wake_at),
        needs=_needs(row.needs) if state.wave < 0 else Needs.MET,
        frozen=freeze is not None and freeze.frozen,
    )


_RELEASING = frozenset({RolloutPhase.PLANNED, RolloutPhase.SCHEDULED, RolloutPhase.RUNNING, RolloutPhase.ROLLING_BACK})


def wave_counts(row: Rollout, lost: Sequence[int]) -> tuple[WaveCounts, ...]:
    """Return the counts of each wave; `lost` has the number of lost nodes of each."""
    return tuple(
        WaveCounts(
            total=wave["total"],
            ended=wave["total"] - wave["scheduled"] - wave["queued"] - wave["running"],
            failed=wave["failed"] + wave["timed_out"],
            lost=lost[number],
        )
        for number, wave in enumerate(row.waves)
    )


def bad_nodes(uid: str) -> tuple[int, ...]:
    """Return how many nodes of each wave have failed or are lost."""
    row = Rollout.objects.get(uid=uid)
    return tuple(each.bad for each in wave_counts(row, _lost(row)))


def _phase_counted(counter: str) -> Phase:
    return Phase.FETCHING if counter == "running" else Phase(counter)


def _open_operations(uid: str, state: RolloutState) -> QuerySet[Operation]:
    """Return the operations that may be released: those of the waves up to the open one, or all while it is undone."""
    rows = Operation.objects.filter(rollout=uid)
    return rows if state.restoring else rows.filter(wave__lte=state.open_wave)


def _scheduled(uid: str) -> QuerySet[Operation]:
    return Operation.objects.filter(rollout=uid, phase=Phase.SCHEDULED)


def _in_progress(uid: str) -> QuerySet[Operation]:
    return Operation.objects.filter(rollout=uid, phase__in=IN_PROGRESS)


def _named(rows: QuerySet[Operation]) -> tuple[str, ...]:
    return tuple(rows.order_by("ordinal").values_list("node", flat=True))


def _candidates(rows: QuerySet[Operation], *, failed_first: bool) -> QuerySet[Operation]:
    """Return the scheduled operations, in the order of their release. With `failed_first` the
    unhealthy nodes come first: `min_healthy` never holds them back."""
    order = ("healthy", "ordinal") if failed_first else ("ordinal",)
    return rows.filter(phase=Phase.SCHEDULED).order_by(*order)


def _may_be_released(now: datetime, *, repairs: bool) -> Q:
    """Match operations that can be released by the state of their node. `repairs`: False for an adoption, which does not
    change what a start loads; no more do files that are only delivered.

    On a node whose server would not start again, an operation gets one attempt: it may repair the start. Its agent finds
    that out before it changes the server, and returns the operation otherwise. Then the operation waits for the node.
    """
    usable = Q(node__in=Node.objects.filter(phase=NodePhase.ONLINE).values("name"))
    if repairs:
        broken = Node.objects.filter(phase=NodePhase.DEGRADED, degraded_reason=WOULD_NOT_START)
        usable |= CHANGES_SERVER & Q(node__in=broken.values("name"), returned_at=None)
    return usable & (Q(ready_at=None) | Q(ready_at__lte=now)) & Q(behind=False)


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
    ).exclude(node__in=decommissioned_nodes())
    # Only a person repeats a removal: clients or data may have come to need the module.
    found = found.exclude(action=Action.REMOVE, rollback=False)
    # Only a person restarts a server again.
    found = found.exclude(way=Way.RESTART)
    # Only a person accepts that options are lost.
    found = found.exclude(reason=Reason.OPTIONS_LOST)
    if state.restoring:
        found = found.filter(rollback=True)
    return tuple(found.order_by("ordinal").values_list("node", "attempt"))


def _untouched_since() -> Q:
    """Match operations that are the newest of their module on their node."""
    return ~Q(Exists(newer_operations()))


def _healthy(uid: str) -> int:
    offline = Node.objects.filter(UNUSABLE).values("name")
    rows = Operation.objects.filter(rollout=uid, wave__gte=0, healthy=True).exclude(phase__in=IN_PROGRESS)
    return rows.exclude(node__in=offline).count()


def _lost(row: Rollout) -> list[int]:
    """Return by wave how many nodes are lost."""
    lost = [0] * len(row.waves)
    for wave, _ in lost_nodes(row).values():
        lost[wave] += 1
    return lost


def _canceled(uid: str, reason: Reason, state: RolloutState) -> int:
    """Return how many operations were canceled for this reason; while it is undone, how many of those that undo it."""
    rows = Operation.objects.filter(rollout=uid, phase=Phase.CANCELED, reason=reason)
    return (rows.filter(rollback=True) if state.restoring else rows).count()


def _progressed_at(row: Rollout, freeze: FleetFreeze | None, now: datetime) -> datetime | None:
    """Return when the clock of the progress deadline started. While a server of the rollout is restarted, it does not run: the
    server may read its data for as long as it makes progress. After that it starts again."""
    start = progress_clock_start(row, freeze)
    if start is None or row.ways == Ways.LOAD:
        return start
    return max(start, newest_restart_of(row.uid, now) or start)


def progress_clock_start(row: Rollout, freeze: FleetFreeze | None) -> datetime | None:
    """Return when the clock of the progress deadline started: at the last progress, or at a later thaw."""
    if row.progressed_at is None or freeze is None or freeze.thawed_at is None:
        return row.progressed_at
    return max(row.progressed_at, freeze.thawed_at)


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((each for each in (one, other) if each is not None), default=None)


def may_replace_by_restart(row: Rollout) -> bool:
    return row.action == Action.INSTALL and row.ways != Ways.LOAD and not (row.rollback_of or row.failback_of)


def one_way_of(row: Rollout, state: RolloutState) -> tuple[str, WayBack] | None:
    """Return the first node whose former version cannot read what the new one writes. Where that is not known counts too,
    unless another node has shown that it can."""
    if row.way_back is None or state.one_way is not None or state.phase == RolloutPhase.ROLLING_BACK:
        return None
    if row.action != Action.INSTALL or row.rollback_of or row.failback_of:  # what a node says of it shows nothing
        return None
    node = row.way_back["not_open"]
    if node is None or (node["result"] == WayBackResult.UNKNOWN and row.way_back["open"]):
        return None
    return node["node"], decoding.convert({name: node[name] for name in node.keys() - {"node"}}, WayBack)


def _next_ready_at(uid: str, now: datetime) -> datetime | None:
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
