"""The snapshot of a rollout from rows in memory: `rollout.queries.snapshot` reads the same from the database."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from rollout.domain.node.state import NodePhase
from rollout.domain.placement.state import PlacementState
from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES, RolloutPhase
from rollout.domain.rollout.releasable import Ready
from rollout.domain.rollout.snapshot import Needs, Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.strategy import Offline
from rollout.messages import RUNNING_PHASES, Action, Phase, Reason
from rollout.models import FleetFreeze, Node, NodeModule, Operation, Rollout
from rollout.projections.counters import COUNTERS
from rollout.queries.restoration import Restoration, restoration
from rollout.queries.snapshot import _FAILED, _RELEASING, _phase_counted, progress_clock_start, wave_counts

IN_PROGRESS = frozenset({Phase.QUEUED, *RUNNING_PHASES})
PHASE_OF = {name: _phase_counted(name) for name in COUNTERS}


class Rows:
    """All that is known: rollouts, nodes and operations by key, modules on nodes, placements, the switch for everything."""

    def __init__(
        self,
        *,
        rollouts: dict[str, Rollout],
        operations: dict[str, Operation],
        nodes: dict[str, Node],
        modules: dict[str, NodeModule],
        placements: dict[tuple[str, str], PlacementState],
        freeze: FleetFreeze | None,
    ) -> None:
        self.rollouts = rollouts
        self.operations = operations
        self.nodes = nodes
        self.modules = modules
        #: By node and module, as their deciders know them.
        self.placements = placements
        self.freeze = freeze
        #: Keys of the operations of each rollout, and of each module on each node.
        self.of_rollout: dict[str, list[str]] = {}
        self.of_placement: dict[tuple[str, str], list[str]] = {}
        for row in sorted(operations.values(), key=lambda each: each.ordinal):
            self.index(row)

    def index(self, row: Operation) -> None:
        self.of_rollout.setdefault(row.rollout, []).append(row.key)
        self.of_placement.setdefault((row.node, row.module_name), []).append(row.key)

    def of(self, uid: str) -> list[Operation]:
        """In the rollout's order."""
        return [self.operations[key] for key in self.of_rollout.get(uid, ())]

    def others(self, row: Operation) -> Iterator[Operation]:
        keys = self.of_placement[row.node, row.module_name]
        return (self.operations[key] for key in keys if self.operations[key].generation > row.generation)

    def phase(self, row: Operation) -> str:
        return self.nodes[row.node].phase


def snapshot_of(uid: str, state: RolloutState, rows: Rows, *, now: datetime) -> Snapshot:
    row, all_rows = rows.rollouts[uid], rows.of(uid)
    open_wave = state.open_wave
    open_rows = all_rows if state.restoring else [each for each in all_rows if each.wave <= open_wave]
    ending = state.phase in {RolloutPhase.ABORTING, RolloutPhase.ROLLING_BACK}
    is_over = row.scheduled + row.queued + row.running == 0
    keeps_health = state.strategy.kept_healthy(state.nodes) > 0
    begins_to_restore = state.phase == RolloutPhase.ROLLING_BACK and is_over and not state.restoring
    restored = restoration_of(uid, rows) if begins_to_restore else Restoration()
    return Snapshot(
        now=now,
        counts={PHASE_OF[name]: getattr(row, name) for name in COUNTERS},
        waves=wave_counts(row, _lost(row, all_rows, rows)),
        ready=_ready(open_rows, state, rows, now, failed_first=keeps_health) if row.scheduled else (),
        offline=_offline(open_rows, state, rows) if row.scheduled else (),
        retriable=_retriable(open_rows, state, rows) if row.failed + row.timed_out else (),
        healthy=_healthy(all_rows, rows) if keeps_health else 0,
        to_restore=restored.nodes,
        unchanged=restored.unchanged,
        scheduled=_named(each for each in all_rows if ending and each.phase == Phase.SCHEDULED),
        cancelable=_named(
            each for each in all_rows if ending and each.phase in IN_PROGRESS and each.phase != Phase.CANCELING
        ),
        superseded=row.superseded,
        decommissioned=_canceled(all_rows, Reason.NODE_DECOMMISSIONED, state) if is_over else 0,
        canceled_by_person=_canceled(all_rows, Reason.MANUAL, state) if is_over else 0,
        unrestored=row.unrestored,
        progressed_at=progress_clock_start(row, rows.freeze),
        wake_at=_next_ready_at(all_rows, now) if row.retries else None,
        needs=_needs(row.needs, rows) if state.wave < 0 else Needs.MET,
        frozen=rows.freeze is not None and rows.freeze.frozen,
    )


def _canceled(all_rows: Iterable[Operation], reason: Reason, state: RolloutState) -> int:
    counted = [each for each in all_rows if each.rollback or not state.restoring]
    return sum((each.phase, each.reason) == (Phase.CANCELED, reason) for each in counted)


def _named(found: Iterable[Operation]) -> tuple[str, ...]:
    return tuple(each.node for each in found)


def _ready(
    open_rows: Iterable[Operation], state: RolloutState, rows: Rows, now: datetime, *, failed_first: bool
) -> tuple[Ready, ...]:
    if state.phase not in _RELEASING:
        return ()
    ready = [
        each
        for each in open_rows
        if each.phase == Phase.SCHEDULED
        and not each.behind
        and (each.ready_at is None or each.ready_at <= now)
        and rows.phase(each) == NodePhase.ONLINE
    ]
    if failed_first:
        ready.sort(key=lambda each: each.healthy)
    limit = state.strategy.parallel(state.nodes)
    return tuple(Ready(node=each.node, is_healthy=each.healthy) for each in ready[:limit])


def _offline(open_rows: Iterable[Operation], state: RolloutState, rows: Rows) -> tuple[str, ...]:
    if state.strategy.offline == Offline.WAIT and not state.restoring:
        return ()
    return _named(each for each in open_rows if each.phase == Phase.SCHEDULED and rows.phase(each) == NodePhase.OFFLINE)


def _retriable(open_rows: Iterable[Operation], state: RolloutState, rows: Rows) -> tuple[tuple[str, int], ...]:
    retries = state.strategy.retries
    if state.phase not in _RELEASING:
        return ()
    return tuple(
        (each.node, each.attempt)
        for each in open_rows
        if each.phase in _FAILED
        and each.attempt <= retries.limit
        and each.reason in retries.reasons
        and (each.rollback or not state.restoring)
        and rows.phase(each) != NodePhase.DECOMMISSIONED
        and not any(rows.others(each))
    )


def _healthy(all_rows: Iterable[Operation], rows: Rows) -> int:
    return sum(
        each.wave >= 0
        and each.healthy
        and each.phase not in IN_PROGRESS
        and rows.nodes[each.node].online
        and not rows.nodes[each.node].degraded_reason
        for each in all_rows
    )


def _lost(row: Rollout, all_rows: Iterable[Operation], rows: Rows) -> list[int]:
    lost = [0] * len(row.waves)
    drifted: set[str] = set()
    if row.action == Action.INSTALL:
        drifted = {
            each.node
            for each in rows.modules.values()
            if each.drifted_at is not None and (each.module_name, each.version) == (row.module_name, row.version)
        }
    for each in all_rows:
        if each.phase == Phase.SUCCEEDED and each.wave >= 0:
            # The doctor is not part of the simulation: each reason is of a server.
            is_away = rows.phase(each) in {NodePhase.OFFLINE, NodePhase.DEGRADED}
            lost[each.wave] += each.node in drifted or is_away
    return lost


def restoration_of(uid: str, rows: Rows) -> Restoration:
    changed = [
        each
        for each in rows.of(uid)
        if each.touched
        and not each.rollback
        and not (each.phase == Phase.SKIPPED and each.attempt == 1)
        and rows.phase(each) != NodePhase.DECOMMISSIONED
    ]
    return restoration(
        uid, [(each.node, each.generation, rows.placements[each.node, each.module_name]) for each in changed]
    )


def _next_ready_at(all_rows: Iterable[Operation], now: datetime) -> datetime | None:
    moments = [each.ready_at for each in all_rows if each.phase == Phase.SCHEDULED and each.ready_at is not None]
    return min((each for each in moments if each > now), default=None)


def _needs(uids: Iterable[str], rows: Rows) -> Needs:
    phases = [rows.rollouts[uid].phase for uid in uids]
    if all(phase == RolloutPhase.SUCCEEDED for phase in phases):
        return Needs.MET
    is_failed = any(phase in FINAL_ROLLOUT_PHASES and phase != RolloutPhase.SUCCEEDED for phase in phases)
    return Needs.FAILED if is_failed else Needs.PENDING
