"""The snapshot of a rollout from rows in memory: `rollout.queries.snapshot` reads the same from the database."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rollout.domain.node.state import NodePhase
from rollout.domain.placement.commands import Skip
from rollout.domain.placement.state import PlacementState
from rollout.domain.restarts import Permission
from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES, RolloutPhase
from rollout.domain.rollout.releasable import Releasable
from rollout.domain.rollout.snapshot import Needs, Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.strategy import Offline
from rollout.messages import CHILD_WORKS, RUNNING_PHASES, Action, Activation, Phase, Reason, Way
from rollout.models import FleetFreeze, Liveness, Node, NodeModule, Operation, Rollout, ShardMember
from rollout.planning.shards import ShardFacts
from rollout.projections.counters import COUNTERS
from rollout.queries.heavy_work import is_heavy
from rollout.queries.operations import SILENT_SECONDS
from rollout.queries.restoration import Restoration, restoration
from rollout.queries.snapshot import (
    _FAILED,
    _RELEASING,
    _earlier,
    _phase_counted,
    may_replace_by_restart,
    one_way_of,
    progress_clock_start,
    wave_counts,
)
from rollout.queries.turns import Facts, changes_server, is_replaced_by_restart, releasable

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
        former: Sequence[Operation],
        members: dict[str, ShardMember],
        heard: Callable[[str], Liveness],
        servers: Callable[[str], Mapping[str, Any]],
        restarting_at: Callable[[str], datetime | None],
    ) -> None:
        self.rollouts = rollouts
        self.operations = operations
        self.nodes = nodes
        self.modules = modules
        #: By node and module, as their deciders know them.
        self.placements = placements
        self.freeze = freeze
        #: Attempts that another attempt has followed.
        self.former = former
        self.members = members
        self.heard = heard
        self.servers = servers
        self.restarting_at = restarting_at
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


def is_at_work(server: Mapping[str, Any]) -> bool:
    """Return True if the server saves, loads or synchronizes its data."""
    works = any(server[each] for each in ("loading", "async_loading", "master_sync_in_progress"))
    return works or server["save_problem"].endswith(CHILD_WORKS)


class FactsInMemory(Facts):
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def members(self, nodes: Collection[str]) -> Mapping[str, ShardMember]:
        return {each: self._rows.members[each] for each in sorted(nodes) if each in self._rows.members}

    def heard(self, nodes: Collection[str]) -> Mapping[str, Liveness]:
        return {each: self._rows.heard(each) for each in nodes}

    def domains(self, nodes: Collection[str], label: str) -> dict[str, str]:
        values = {each: self._rows.nodes[each].agent_labels.get(label, "") for each in nodes}
        return {name: value for name, value in values.items() if value}

    def loaded(self, module_name: str, nodes: Collection[str]) -> dict[str, int]:
        return {
            each.node: each.version
            for each in self._rows.modules.values()
            if each.node in nodes and each.module_name == module_name and each.observed == Activation.LOAD
        }

    def unfinished(self, uid: str, nodes: Collection[str]) -> Sequence[Operation]:
        return [each for each in self._rows.of(uid) if each.node in nodes and each.finished_at is None]

    def servers(self, nodes: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        return {each: self._rows.servers(each) for each in nodes}

    def permission(self, uid: str) -> Permission:
        row = self._rows.rollouts[uid]
        return Permission(may_interrupt=row.may_interrupt, may_discard_data=row.may_discard_data)

    def at_work(self, hosts: Collection[str], nodes: Collection[str]) -> Mapping[str, str]:
        members = [each for each in self._rows.members.values() if each.host in hosts or each.node in nodes]
        return {each.node: each.host for each in members if is_at_work(self._rows.servers(each.node))}

    def looping(self, nodes: Collection[str]) -> Mapping[str, int]:
        return {}

    def restarts_ended(self, nodes: Collection[str], since: datetime) -> Mapping[str, datetime]:
        found: dict[str, datetime] = {}
        for each in (*self._rows.operations.values(), *self._rows.former):
            if each.node in nodes and each.way == Way.RESTART and each.finished_at and each.finished_at >= since:
                found[each.node] = max(each.finished_at, found.get(each.node, each.finished_at))
        return found

    def heavy(self, now: datetime) -> Sequence[Operation]:
        return [each for each in self._in_progress(now) if is_heavy(each)]

    def in_progress(self, now: datetime) -> Mapping[str, ShardMember]:
        return self.members({each.node for each in self._in_progress(now)})

    def labels(self, now: datetime) -> set[str]:
        return {self._rows.rollouts[each.rollout].strategy["domain"] for each in self._in_progress(now)} - {""}

    def _in_progress(self, now: datetime) -> Iterator[Operation]:
        for each in (*self._rows.operations.values(), *self._rows.former):
            if (each.deadline_at or (each.may_run_until and each.may_run_until > now)) and changes_server(each):
                yield each


class PlanFacts(ShardFacts):
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def members(self) -> Iterable[ShardMember]:
        return self._rows.members.values()

    def loaded(self, module_name: str, nodes: Collection[str]) -> Mapping[str, int]:
        return FactsInMemory(self._rows).loaded(module_name, nodes)

    def too_old(self, nodes: Collection[str]) -> dict[str, Skip]:
        return {}


def snapshot_of(uid: str, state: RolloutState, rows: Rows, *, now: datetime) -> Snapshot:
    row, all_rows = rows.rollouts[uid], rows.of(uid)
    open_wave = state.open_wave
    open_rows = all_rows if state.restoring else [each for each in all_rows if each.wave <= open_wave]
    ending = state.phase in {RolloutPhase.ABORTING, RolloutPhase.ROLLING_BACK}
    is_over = row.scheduled + row.queued + row.running == 0
    keeps_health = state.strategy.kept_healthy(state.nodes) > 0
    begins_to_restore = state.phase == RolloutPhase.ROLLING_BACK and is_over and not state.restoring
    restored = restoration_of(uid, rows) if begins_to_restore else Restoration()
    found, tries_way_back = Releasable(state.strategy, now, state.strategy.parallel(state.nodes)), False
    if row.scheduled and state.phase in _RELEASING:
        found, tries_way_back = _releasable(open_rows, all_rows, state, rows, now, failed_first=keeps_health)
    return Snapshot(
        now=now,
        counts={PHASE_OF[name]: getattr(row, name) for name in COUNTERS},
        waves=wave_counts(row, _lost(row, all_rows, rows)),
        ready=tuple(found.ready),
        blocked=tuple(found.blocked),
        waits=tuple(found.waits),
        unfit=tuple(found.unfit),
        is_waiting=found.is_waiting,
        behind=_named(each for each in open_rows if each.phase == Phase.SCHEDULED and each.behind)
        if row.scheduled and state.phase in _RELEASING and not (found.ready or row.queued or row.running)
        else (),
        offline=_offline(_open_or(found.come_first, open_rows, all_rows), state, rows) if row.scheduled else (),
        retriable=_retriable(all_rows, state, rows) if row.failed + row.timed_out else (),
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
        one_way=one_way_of(row, state),
        tries_way_back=tries_way_back,
        progressed_at=_progressed_at(row, all_rows, rows, now),
        wake_at=_earlier(_next_ready_at(all_rows, now) if row.retries else None, found.wake_at),
        needs=_needs(row.needs, rows) if state.wave < 0 else Needs.MET,
        frozen=rows.freeze is not None and rows.freeze.frozen,
    )


def _progressed_at(row: Rollout, all_rows: Iterable[Operation], rows: Rows, now: datetime) -> datetime | None:
    start = progress_clock_start(row, rows.freeze)
    restarted = (each.node for each in all_rows if each.way == Way.RESTART and each.released_at is not None)
    moments = [at + timedelta(seconds=SILENT_SECONDS) for each in restarted if (at := rows.restarting_at(each))]
    return start and max([start, *(min(now, each) for each in moments)])


def _canceled(all_rows: Iterable[Operation], reason: Reason, state: RolloutState) -> int:
    counted = [each for each in all_rows if each.rollback or not state.restoring]
    return sum((each.phase, each.reason) == (Phase.CANCELED, reason) for each in counted)


def _named(found: Iterable[Operation]) -> tuple[str, ...]:
    return tuple(each.node for each in found)


def _releasable(
    open_rows: Sequence[Operation],
    all_rows: Sequence[Operation],
    state: RolloutState,
    rows: Rows,
    now: datetime,
    *,
    failed_first: bool,
) -> tuple[Releasable, bool]:
    """Return what may be released, and True if the first node that replaces a version by a restart is at work."""
    row, facts = rows.rollouts[state.uid], FactsInMemory(rows)
    shows_way_back = may_replace_by_restart(row) and row.way_back is None
    tries = shows_way_back and any(each.phase in IN_PROGRESS and each.way == Way.RESTART for each in all_rows)
    candidates = [each for each in open_rows if _may_be_released(each, rows, now)]
    if tries:
        loaded = facts.loaded(row.module_name, {each.node for each in candidates})
        candidates = [each for each in candidates if not is_replaced_by_restart(each, loaded)]
    if failed_first:
        candidates.sort(key=lambda each: each.healthy)
    later = [] if state.restoring else [each for each in all_rows if each.wave > state.open_wave]
    found = releasable(
        [candidates],
        lambda nodes: [each for each in later if each.node in nodes and _may_be_released(each, rows, now)],
        facts,
        state.strategy,
        now,
        limit=state.strategy.parallel(state.nodes),
        shows_way_back=shows_way_back,
    )
    return found, tries


def _open_or(nodes: Collection[str], open_rows: Sequence[Operation], all_rows: Sequence[Operation]) -> list[Operation]:
    """Return the rows of open waves, and those of these nodes."""
    is_open = {each.key for each in open_rows}
    return [each for each in all_rows if each.key in is_open or each.node in nodes]


def _may_be_released(row: Operation, rows: Rows, now: datetime) -> bool:
    is_due = not row.behind and (row.ready_at is None or row.ready_at <= now)
    return row.phase == Phase.SCHEDULED and is_due and rows.phase(row) == NodePhase.ONLINE


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
        and each.way != Way.RESTART
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
