"""What always holds, looked at after every append and every time a rollout has come to rest.

Most rules follow the events by themselves, so that they share as little as possible with what they watch.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Model

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
from rollout.domain.rollout.blockers import is_start_due
from rollout.domain.rollout.events import (
    NodesReleased,
    NodesRetried,
    RollbackRequested,
    RollbackStarted,
    RolloutFinished,
    RolloutPaused,
    RolloutPhase,
    RolloutResumed,
    RolloutStarted,
    WaveFailed,
    WavePassed,
    WavePhase,
)
from rollout.domain.rollout.progress_deadline import progress_deadline
from rollout.domain.rollout.snapshot import Needs, Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.rollout.turns import is_below
from rollout.messages import FINAL_PHASES, Action, Activation, Phase, Reason
from rollout.models import Operation, Rollout
from rollout.projections.counters import COUNTERS, counter_of
from tests.simulation.snapshot import IN_PROGRESS

if TYPE_CHECKING:
    from tests.simulation.agents import Agent, Order
    from tests.simulation.control_plane import ControlPlane
    from tests.simulation.log import Recorded

#: After so many seconds, all servers have told of a failover, also if one heartbeat was lost.
UNTOLD_SECONDS = 30.0
BAD = (Phase.FAILED, Phase.TIMED_OUT)


class Broken(AssertionError):
    """A rule does not hold. `rule` is its name."""

    def __init__(self, world: "ControlPlane", rule: str, detail: str = "") -> None:
        self.rule = rule
        again = f"MODFLEET_SEED={world.seed} .venv/bin/pytest -k one_seed tests/simulation"
        last = "\n".join(f"  {each.position} {each.recorded_at:%H:%M:%S.%f} {each.event}" for each in world.log[-15:])
        super().__init__(f"seed {world.seed}: not so: {rule} {detail}\n{last}\nagain: {again}")


class Rules:
    """Of one world."""

    def __init__(self, world: "ControlPlane") -> None:
        self.world = world
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
        #: Nodes on which a canceled operation has succeeded: what is there is not desired.
        self.canceled_late: set[str] = set()
        #: By node: the shard that its server belonged to when its agent began to change it.
        self.shard_then: dict[str, str] = {}
        #: By rollout and node: attempt and failures when its agent returned the operation.
        self.returned: dict[tuple[str, str], tuple[int, int, bool]] = {}

    def holds(self, condition: object, rule: str, detail: str = "") -> None:
        if not condition:
            raise Broken(self.world, rule, detail)

    # --- When an agent has checked its server, and begins to change it

    def begins_to_change(self, agent: "Agent", order: "Order") -> None:
        """What agents really do, whatever the control plane believes."""
        servers, strategy = self.world.servers, self.world.rows.rollouts[order.rollout].strategy
        own, label = servers[agent.name], strategy.get("domain", "")
        self.shard_then[agent.name] = own.group
        if self._has_left(agent.name):
            return
        for other in self.world.agents.values():
            if other.changing is None or other is agent or self._has_left(other.name):
                continue
            theirs, both = servers[other.name], f"{agent.name} and {other.name}"
            # A server may join the shard while it is changed.
            is_one_shard = own.group == theirs.group == self.shard_then[other.name]
            is_one_shard &= servers.top(agent.name) == servers.top(other.name)
            is_one_shard &= self._is_settled(agent.name, order) and self._is_settled(other.name, other.changing)
            self.holds(not is_one_shard, "one copy of a shard at a time", both)
            self.holds(own.host != theirs.host, "one node of a host at a time", both)
            their_strategy = self.world.rows.rollouts[other.changing.rollout].strategy
            if label and label == their_strategy.get("domain", ""):
                self.holds(own.zone == theirs.zone, "one failure domain at a time", both)
        self._keeps_the_order(agent, order)

    def _has_left(self, name: str) -> bool:
        return self.world.rows.nodes[name].phase == NodePhase.DECOMMISSIONED

    def _is_settled(self, name: str, order: "Order") -> bool:
        """Return False if roles in the shard have changed since the release, or so shortly before it that not all servers
        had told it. The agent sees only changes of its own master and its own replicas."""
        row = self.world.known_operation(order.rollout, name)
        released_at = min(each for each in (row.released_at, order.sent_at) if each is not None)
        return self.world.servers[name].moved_at < released_at - timedelta(seconds=UNTOLD_SECONDS)

    def _keeps_the_order(self, agent: "Agent", order: "Order") -> None:
        """A replica never has an older version than the servers above it."""
        servers, agents, name = self.world.servers, self.world.agents, order.module_name
        now, target = agent.loaded(name), agent.target(order)
        is_settled = self._is_settled(agent.name, order)
        if is_below(now, target):
            for each in servers.below(agent.name) if is_settled else servers.replicas(agent.name):
                found = agents[each.name].loaded(name)
                is_fine = agents[each.name].is_spoiled or not is_below(found, target)
                self.holds(is_fine, "replicas before their master", f"{agent.name} {each.name} {found} {target}")
        elif is_below(target, now):
            for each in servers.above(agent.name)[: None if is_settled else 1]:
                found = agents[each.name].loaded(name)
                is_fine = agents[each.name].is_spoiled or not is_below(target, found)
                self.holds(is_fine, "a master before its replicas", f"{agent.name} {each.name} {found} {target}")

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
        self.restored[event.rollback_of] += 1
        self._is_restored_once(event.rollback_of)

    def _request_rollback(self, event: RollbackRequested) -> None:
        self.holds(not self.world.started(event.rollout).rollback_of, "a rollback never starts a rollback")
        self.requested[event.rollout] += 1
        self.holds(self.requested[event.rollout] == 1, "a rollout is rolled back at most once")

    def _start_rollback(self, event: RollbackStarted) -> None:
        self.stopped.discard(event.rollout)
        self.restored[event.rollout] += 1
        self._is_restored_once(event.rollout)

    def _is_restored_once(self, uid: str) -> None:
        self.holds(self.restored[uid] == 1, "a rollout is rolled back at most once")

    def _fail(self, event: WaveFailed) -> None:
        self.stopped.add(event.rollout)

    def _pause(self, event: RolloutPaused) -> None:
        self.paused.add(event.rollout)

    def _resume(self, event: RolloutResumed) -> None:
        self.stopped.discard(event.rollout)
        self.paused.discard(event.rollout)

    def _retry(self, event: NodesRetried) -> None:
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

    # --- When a rollout has come to rest

    def at_rest(self, uid: str, state: RolloutState, fleet: Snapshot) -> None:
        """What is scheduled waits for something that comes, by a person or by a clock."""
        if not fleet.counts[Phase.SCHEDULED]:
            self.holds(state.phase.is_final or self._is_awaited(uid, state, fleet), "every rollout waits for something")
            return
        waits = (
            state.phase in {RolloutPhase.PAUSED, RolloutPhase.PENDING_APPROVAL}
            or fleet.frozen
            or fleet.needs == Needs.PENDING
            or not is_start_due(state, fleet)
            or state.wave_phase in {WavePhase.SOAKING, WavePhase.GATED}
            or progress_deadline(state, fleet) is not None
            or self._is_behind(uid)
            or (state.phase == RolloutPhase.ROLLING_BACK and fleet.in_progress > 0)
            or (fleet.is_waiting and fleet.wake_at is not None)
        )
        self._waits_end(uid, state, fleet)
        self.holds(waits, "what is scheduled has a clock", f"{state.phase} {state.wave_phase}")

    def _waits_end(self, uid: str, state: RolloutState, fleet: Snapshot) -> None:
        """A node that waits for its server is released, or skipped after `ready_deadline_seconds`."""
        is_full = len(fleet.ready) >= state.strategy.parallel(state.nodes)
        is_moving = not fleet.frozen and (state.phase == RolloutPhase.RUNNING or state.restoring)
        if is_full or not is_moving or progress_deadline(state, fleet) is not None:
            return
        waiting = {each.node for each in fleet.blocked if each.reason is not None}
        longest = timedelta(seconds=state.strategy.ready_deadline_seconds + 10)
        for row in self.world.rows.of(uid):
            if row.node in waiting and row.waiting_since is not None:
                self.holds(row.waiting_since + longest >= self.world.now, "each wait ends", row.node)

    def _is_awaited(self, uid: str, state: RolloutState, fleet: Snapshot) -> bool:
        person_or_clock = state.phase == RolloutPhase.PAUSED or fleet.frozen
        person_or_clock |= state.wave_phase in {WavePhase.SOAKING, WavePhase.GATED}
        person_or_clock |= fleet.needs == Needs.PENDING or not is_start_due(state, fleet)
        person_or_clock |= state.phase == RolloutPhase.PENDING_APPROVAL
        return person_or_clock or fleet.in_progress > 0

    def _is_behind(self, uid: str) -> bool:
        return any(row.behind for row in self.world.rows.of(uid))

    # --- At the end

    def at_end(self) -> None:
        """Everything has ended, the counters are those of the rows, and the log tells it all again."""
        world = self.world
        unfinished = [uid for uid, state in world.rollouts.items() if not state.phase.is_final]
        self.holds(not unfinished, "everything ends", f"{[world.rollouts[uid].phase for uid in unfinished]}")
        self.holds(not self.live and not self.waiting and not world.in_progress, "everything ends", f"{self.live}")
        self._counters_are_those_of_the_rows()
        self._every_outcome_stays()
        self._nodes_have_what_they_said()
        self._nodes_have_what_is_known()
        self._replay_is_the_same()

    def _counters_are_those_of_the_rows(self) -> None:
        for row in self.world.rows.rollouts.values():
            rows = self.world.rows.of(row.uid)
            for at, chosen in [(vars(row), rows), *self._waves(row, rows)]:
                counted = Counter(counter_of(each.phase) for each in chosen)
                self.holds(all(at[name] == counted[name] for name in COUNTERS), "counters add up", row.uid)

    def _waves(self, row: Rollout, rows: Sequence[Operation]) -> list[tuple[dict[str, Any], list[Operation]]]:
        return [(wave, [each for each in rows if each.wave == number]) for number, wave in enumerate(row.waves)]

    def _every_outcome_stays(self) -> None:
        """Whatever came after it."""
        rows = [*self.world.rows.operations.values(), *self.world.of_rollouts.former]
        ends = [each.event for each in self.world.log if isinstance(each.event, OperationFinished)]
        kept = Counter((each.rollout, each.node, each.phase, each.message) for each in rows if each.finished_at)
        told = Counter((each.rollout, each.node, str(each.phase), each.message) for each in ends)
        self.holds(kept == told, "every outcome stays", f"{kept - told} {told - kept}")

    def _nodes_have_what_they_said(self) -> None:
        """A success was one: the version is there with the right bytes, or gone."""
        for (node, module_name), state in self.world.placements.items():
            ended, agent = state.ended, self.world.agents[node]
            if ended is None or ended.phase not in {Phase.SUCCEEDED, Phase.ROLLED_BACK} or ended.before is None:
                continue
            if (module_name, ended.version) in agent.spoiled:
                continue
            is_there = agent.disk.get((module_name, ended.version))
            wanted = None
            if ended.action == Action.INSTALL:
                wanted = (ended.content_sha256, ended.activation == Activation.LOAD)
            self.holds(is_there == wanted, "a success was one", f"{node} {is_there} {wanted}")

    def _nodes_have_what_is_known(self) -> None:
        """What the last success left is there, and desired; what failed is not."""
        for (node, module_name), state in self.world.placements.items():
            agent = self.world.agents[node]
            if state.had is None or agent.is_spoiled or self.open[node]:
                continue
            known = {each.version: (each.content_sha256, each.activation == Activation.LOAD) for each in state.had}
            self.holds(agent.versions(module_name) == known, "what is known is there", f"{node} {known}")
            self.holds(node in self.canceled_late or state.desired == state.had, "what is there is desired", node)

    def _replay_is_the_same(self) -> None:
        world, again = self.world, self.world.blank()
        for each in world.log:
            again.apply(each)
        for name in ("nodes", "placements", "rollouts", "fleet"):
            self.holds(getattr(world, name) == getattr(again, name), "replay equals state", name)
        for name in ("rollouts", "operations", "nodes", "modules"):
            live, replayed = getattr(world.rows, name), getattr(again.rows, name)
            is_same = live.keys() == replayed.keys() and all(
                _columns(live[key]) == _columns(replayed[key]) for key in live
            )
            self.holds(is_same, "replay equals state", name)


def _columns(row: Model) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name != "_state"}


_BEFORE: dict[type, Callable[[Rules, Any], None]] = {
    RolloutStarted: Rules._start,
    RollbackRequested: Rules._request_rollback,
    RollbackStarted: Rules._start_rollback,
    WaveFailed: Rules._fail,
    RolloutPaused: Rules._pause,
    RolloutResumed: Rules._resume,
    NodesRetried: Rules._retry,
    WavePassed: Rules._pass,
    RolloutFinished: Rules._finish_rollout,
    NodesReleased: Rules._release_nodes,
    OperationScheduled: Rules._schedule,
    OperationReleased: Rules._release,
    OperationProgressed: Rules._progress,
    OperationGivenBack: Rules._give_back,
    OperationReportedLate: Rules._report_late,
    OperationFinished: Rules._finish,
}
