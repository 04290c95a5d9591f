"""What holds before and after each event. These rules follow the events by themselves, so that they share as little as
possible with what they watch."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rollout.domain.node.state import NodePhase
from rollout.domain.placement.events import (
    OperationFinished,
    OperationGivenBack,
    OperationProgressed,
    OperationReleased,
    OperationReportedLate,
    OperationScheduled,
    PlacementForgotten,
    ReportRejected,
)
from rollout.domain.rollout.events import (
    NodesReleased,
    NodesRetried,
    RollbackRequested,
    RollbackStarted,
    RolloutFinished,
    RolloutPaused,
    RolloutResumed,
    RolloutStarted,
    WaveFailed,
    WavePassed,
)
from rollout.messages import FINAL_PHASES, Action, Activation, Phase, Reason
from rollout.models import Operation, Rollout
from rollout.projections.counters import COUNTERS
from tests.simulation.snapshot import IN_PROGRESS

if TYPE_CHECKING:
    from tests.simulation.control_plane import ControlPlane
    from tests.simulation.log import Recorded

from tests.simulation.watch import Watch

BAD = (Phase.FAILED, Phase.TIMED_OUT)
#: A heartbeat that is older says nothing about a server, seconds.
FRESH_SECONDS = 15.0


class EventRules(Watch):
    def __init__(self, world: "ControlPlane") -> None:
        super().__init__(world)
        self.stopped: set[str] = set()  # by a threshold, and nobody has resumed
        self.paused: set[str] = set()
        self.passed: set[tuple[str, int]] = set()  # (rollout, wave)
        #: The rollout, by node and module.
        self.live: dict[tuple[str, str], str] = {}
        self.waiting: dict[tuple[str, str], str] = {}
        self.finished: set[str] = set()
        self.worked_after_all: set[tuple[str, str]] = set()  # (rollout, node): given back, and worked on nevertheless
        self.failing: defaultdict[str, set[str]] = defaultdict(set)  # nodes whose last attempt failed, by rollout
        self.requested: Counter[str] = Counter()
        self.restored: Counter[str] = Counter()
        #: What has ended and may have happened on the node all the same, as (rollout, is a rollback), by node; and what
        #: of that was open when an operation was released, by rollout and node.
        self.open: defaultdict[str, set[tuple[str, bool]]] = defaultdict(set)
        self.open_before: dict[tuple[str, str], set[tuple[str, bool]]] = {}
        #: How many attempts have ended so, by node and what is open.
        self.unanswered: Counter[tuple[str, tuple[str, bool]]] = Counter()
        #: Nodes on which a canceled operation has succeeded: what is there is not desired.
        self.canceled_late: set[str] = set()
        #: By rollout and node: attempt and failures when its agent returned the operation.
        self.returned: dict[tuple[str, str], tuple[int, int, bool]] = {}
        #: Rollout, node, generation and attempt of what no person has asked for again.
        self.automatic: set[tuple[str, str, int, int]] = set()

    # --- Before an event is folded

    def before(self, recorded: "Recorded") -> None:
        check = _BEFORE.get(type(recorded.event))
        if recorded.stream.startswith("rollout:"):
            self.holds(recorded.event.rollout not in self.finished, "final is final")
        if check is not None:
            check(self, recorded.event)

    def _start(self, event: RolloutStarted) -> None:
        if not event.rollback_of:
            return
        self.holds(not self.world.started(event.rollback_of).rollback_of, "a rollback never starts a rollback")
        self.holds(self.world.rollouts[event.rollback_of].one_way is None, "no rollback of a one-way change")
        self.restored[event.rollback_of] += 1
        self._is_restored_once(event.rollback_of)

    def _request_rollback(self, event: RollbackRequested) -> None:
        self.holds(not self.world.started(event.rollout).rollback_of, "a rollback never starts a rollback")
        self.holds(self.world.rollouts[event.rollout].one_way is None, "no rollback of a one-way change")
        self.requested[event.rollout] += 1
        self.holds(self.requested[event.rollout] == 1, "a rollout is rolled back at most once")

    def _start_rollback(self, event: RollbackStarted) -> None:
        self.stopped.discard(event.rollout)
        self.restored[event.rollout] += bool(event.nodes)  # newer rollouts may leave nothing to restore for now
        self._is_restored_once(event.rollout)

    def _is_restored_once(self, uid: str) -> None:
        self.holds(self.restored[uid] <= 1, "a rollout is rolled back at most once")

    def _fail(self, event: WaveFailed) -> None:
        self.stopped.add(event.rollout)

    def _pause(self, event: RolloutPaused) -> None:
        self.paused.add(event.rollout)

    def _resume(self, event: RolloutResumed) -> None:
        self.stopped.discard(event.rollout)
        self.paused.discard(event.rollout)

    def _retry(self, event: NodesRetried) -> None:
        if event.automatic:
            for row in (self.world.known_operation(event.rollout, node) for node in event.nodes):
                self.automatic.add((row.rollout, row.node, row.generation, row.attempt + 1))
        restoring = self.world.rollouts[event.rollout].restoring
        self.holds(not event.automatic or event.rollout not in self.stopped or restoring, "nothing after a threshold")

    def _pass(self, event: WavePassed) -> None:
        self.passed.add((event.rollout, event.wave))

    def _finish_rollout(self, event: RolloutFinished) -> None:
        self.finished.add(event.rollout)

    def _release_nodes(self, event: NodesReleased) -> None:
        uid = event.rollout
        self.holds(uid not in self.stopped, "nothing after a threshold")
        restoring = self.world.rollouts[uid].restoring
        self.holds(uid not in self.paused or restoring, "nothing while it is paused")
        self.holds(self.world.fleet.frozen is None, "nothing while the fleet is frozen")
        self.holds(len(set(event.nodes)) == len(event.nodes), "a node is released once")
        self.holds(
            not self.world.rollouts[uid].waits_for_promotion or restoring, "nothing while a one-way change waits"
        )
        self.world.rules.releases_first(event)
        for node in event.nodes:
            row = self.world.known_operation(uid, node)
            self._has_been_heard(row)
            self.world.rules.releases_restart(row)

    def _schedule(self, event: OperationScheduled) -> None:
        place = event.node, event.module_name
        self.holds(event.rollout not in self.finished, "final is final")
        if event.behind:
            self.holds(place in self.live and place not in self.waiting, "one live operation")
            self.waiting[place] = event.rollout
        else:
            self.holds(place not in self.live, "one live operation", f"{place}")
            self.live[place] = event.rollout

    def _release(self, event: OperationReleased) -> None:
        world, uid = self.world, event.rollout
        row = world.known_operation(uid, event.node)
        self.holds(self.live.get((event.node, event.module_name)) == uid, "one live operation")
        if not row.rollback and row.wave > 0 and (uid, row.wave - 1) not in self.passed:
            self.holds(self._comes_first(row), "waves one after the other", event.node)
        known = self.returned.pop((uid, event.node), None)
        bad = (row.attempt, row.failed_before, row.healthy)
        self.holds(known is None or known[1:] == bad[1:], "a return is no failure")
        self.holds(known is None or known[0] == row.attempt, "a return uses up no attempt")
        if not row.rollback:
            self.open_before.setdefault((uid, event.node), set(self.open[event.node]))

    def _has_been_heard(self, row: Operation) -> None:
        """A server is changed only on a heartbeat that is new enough to know its place and its state."""
        world, agent = self.world, self.world.agents[row.node]
        heard_at = max(world.last_heard[row.node], agent.silent_since or world.now)
        is_fresh = heard_at + timedelta(seconds=FRESH_SECONDS) >= world.now
        is_loading = row.action == Action.INSTALL and row.activation == Activation.LOAD
        self.holds(is_fresh or not is_loading, "a release needs a fresh heartbeat", row.node)

    def _comes_first(self, row: Operation) -> bool:
        """Return True if a node of an open wave waits for this one, because it has become its replica or its master."""
        rows, open_wave = self.world.rows, self.world.rollouts[row.rollout].open_wave
        waiting = {each.node for each in rows.of(row.rollout) if each.wave <= open_wave and each.finished_at is None}
        related, new = {row.node}, {row.node}
        while new:
            masters = {rows.members[each].master for each in new if each in rows.members}
            replicas = {each for name in new if name in rows.members for each in rows.members[name].replicas}
            listing = {each.node for each in rows.members.values() if new.intersection(each.replicas)}
            new = (masters | replicas | listing) - related - {""}
            related |= new
        return row.wave > open_wave and bool(waiting & related)

    def _report_late(self, event: OperationReportedLate) -> None:
        """The node has said after all what became of it: whoever asks now knows."""
        row = self.world.known_operation(event.rollout, event.node)
        key = (event.rollout, row.rollback)
        if row.phase == Phase.CANCELED:
            self.canceled_late.add(event.node)
        if event.phase == Phase.FAILED and self.unanswered[event.node, key] > 1:
            return  # of the last attempt: an earlier one may have succeeded
        self.open[event.node].discard(key)
        for (_, node), keys in self.open_before.items():
            if node == event.node:
                keys.discard(key)

    def _restores_what_was_there(self, event: OperationFinished, row: Operation) -> None:
        """Unless somebody or something changed the node that the control plane has never heard of."""
        world, agent = self.world, self.world.agents[event.node]
        uid = world.started(event.rollout).rollback_of or event.rollout
        if agent.is_spoiled or self.open_before.get((uid, event.node)):
            return
        had = agent.had.get(uid, agent.had[event.rollout])
        self.holds(
            agent.versions(event.module_name) == had,
            "a rollback restores what the node had",
            f"{event.node} {agent.versions(event.module_name)} {had}",
        )

    def _progress(self, event: OperationProgressed) -> None:
        if self.world.known_operation(event.rollout, event.node).phase == Phase.SCHEDULED:
            self.worked_after_all.add((event.rollout, event.node))

    def _give_back(self, event: OperationGivenBack) -> None:
        self.worked_after_all.discard((event.rollout, event.node))
        row = self.world.known_operation(event.rollout, event.node)
        if event.reason is not None:
            self.returned[event.rollout, event.node] = row.attempt, row.failed_before, row.healthy

    def _finish(self, event: OperationFinished) -> None:
        place, key = (event.node, event.module_name), (event.rollout, event.node)
        row = self.world.known_operation(*key)
        self.holds(row.phase not in FINAL_PHASES, "final is final", str(key))
        self.returned.pop(key, None)
        self.worked_after_all.discard(key)
        self._note_what_is_open(event, row)
        if event.phase == Phase.ROLLED_BACK:
            self._restores_what_was_there(event, row)
        (self.failing[event.rollout].add if event.phase in BAD else self.failing[event.rollout].discard)(event.node)
        if self.waiting.get(place) == event.rollout:
            del self.waiting[place]
        else:
            self.holds(self.live.pop(place, None) == event.rollout, "one live operation")
            if place in self.waiting:
                self.live[place] = self.waiting.pop(place)

    def _note_what_is_open(self, event: OperationFinished, row: Operation) -> None:
        """The control plane may end an operation without the node's answer."""
        key = (event.rollout, row.rollback)
        if event.phase in {Phase.SUCCEEDED, Phase.ROLLED_BACK}:
            self.open[event.node].discard(key)
        elif row.touched and (
            event.phase == Phase.TIMED_OUT
            or row.phase == Phase.SCHEDULED  # it was given back, and may have been started
            or event.reason == Reason.NODE_DECOMMISSIONED
            or (event.phase == Phase.CANCELED and event.message)
        ):
            self.open[event.node].add(key)
            self.unanswered[event.node, key] += 1

    # --- After an append

    def after(self, added: "Sequence[Recorded]") -> None:
        uids = dict.fromkeys(each.event.rollout for each in added if hasattr(each.event, "rollout"))
        for uid in uids:
            if uid in self.world.rows.rollouts:
                self._counters_add_up(self.world.rows.rollouts[uid])
        for each in added:
            match each.event:
                case NodesReleased():
                    usable = [self.world.nodes[node].phase == NodePhase.ONLINE for node in each.event.nodes]
                    self.holds(all(usable), "only nodes that can be used get something", str(each.event.nodes))
                    self._has_room(each.event)
                    self._keeps_healthy(each.event)
                    self._tolerates(each.event)
                case OperationReportedLate() | ReportRejected() | PlacementForgotten():
                    pass
                case event if each.stream.startswith("placement:"):
                    self._has_a_deadline(self.world.known_operation(event.rollout, event.node))

    def _counters_add_up(self, row: Rollout) -> None:
        counted = sum([getattr(row, name) for name in COUNTERS])
        self.holds(counted == row.total, "counters add up", f"{counted} of {row.total}")
        in_no_wave = sum(each.wave < 0 for each in self.world.rows.of(row.uid))
        in_waves = sum(each["total"] for each in row.waves)
        self.holds(in_waves + in_no_wave == row.total, "counters add up", f"{in_waves} in waves, {in_no_wave} in none")
        before = sum(wave["failed_before"] for wave in row.waves)
        self.holds(before == row.failed_before, "counters add up", f"{before} of {row.failed_before} failed before")
        for wave in row.waves:
            self.holds(sum([wave[name] for name in COUNTERS]) == wave["total"], "counters add up", str(wave))

    def _has_room(self, event: NodesReleased) -> None:
        state, row = self.world.rollouts[event.rollout], self.world.rows.rollouts[event.rollout]
        after_all = sum(uid == event.rollout for uid, _ in self.worked_after_all)
        in_progress = row.queued + row.running - after_all
        self.holds(in_progress <= state.strategy.parallel(state.nodes), "max_parallel in progress", str(in_progress))

    def _keeps_healthy(self, event: NodesReleased) -> None:
        world, uid = self.world, event.rollout
        state = world.rollouts[uid]
        kept = state.strategy.kept_healthy(state.nodes)
        if not kept or all(node in self.failing[uid] for node in event.nodes):
            return
        healthy = [
            row.node
            for row in world.rows.of(uid)
            if row.wave >= 0
            and row.node not in self.failing[uid]
            and world.nodes[row.node].online
            and world.nodes[row.node].degradation is None
            and self.live_phase(row) not in IN_PROGRESS
        ]
        self.holds(len(healthy) >= kept, "min_healthy stay untouched", f"{len(healthy)} of {kept}")

    def live_phase(self, row: Operation) -> Phase | None:
        live = self.world.placements[row.node, row.module_name].live
        return live.phase if live is not None and live.rollout == row.rollout else None

    def _tolerates(self, event: NodesReleased) -> None:
        """Failures count per wave and over all, whatever the step thought of them."""
        state = self.world.rollouts[event.rollout]
        if state.restoring:
            return
        bad = Counter(row.wave for row in self.world.rows.of(event.rollout) if row.phase in BAD and row.wave >= 0)
        for wave, forgiven in enumerate(state.forgiven):
            bad[wave] = max(0, bad[wave] - forgiven)
        sizes, strategy = self.world.started(event.rollout).waves, state.strategy
        for wave, count in bad.items():
            self.holds(count <= strategy.tolerated(sizes[wave]), "max_failures of a wave")
        self.holds(bad.total() <= strategy.tolerated(state.nodes), "max_failures in all", str(bad.total()))

    def _has_a_deadline(self, row: Operation) -> None:
        self.holds(
            (row.phase in IN_PROGRESS) == (row.deadline_at is not None), "what is in hand has a deadline", row.phase
        )
        self.holds((row.phase in FINAL_PHASES) == (row.finished_at is not None), "what is in hand has a deadline")


_BEFORE: dict[type, Callable[[EventRules, Any], None]] = {
    RolloutStarted: EventRules._start,
    RollbackRequested: EventRules._request_rollback,
    RollbackStarted: EventRules._start_rollback,
    WaveFailed: EventRules._fail,
    RolloutPaused: EventRules._pause,
    RolloutResumed: EventRules._resume,
    NodesRetried: EventRules._retry,
    WavePassed: EventRules._pass,
    RolloutFinished: EventRules._finish_rollout,
    NodesReleased: EventRules._release_nodes,
    OperationScheduled: EventRules._schedule,
    OperationReleased: EventRules._release,
    OperationProgressed: EventRules._progress,
    OperationGivenBack: EventRules._give_back,
    OperationReportedLate: EventRules._report_late,
    OperationFinished: EventRules._finish,
}
