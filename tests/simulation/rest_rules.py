"""What holds when a rollout has come to rest, and at the end of all."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Model

from rollout.domain.placement.events import (
    OperationFinished,
)
from rollout.domain.rollout.blockers import is_start_due
from rollout.domain.rollout.events import (
    RolloutPhase,
    WavePhase,
)
from rollout.domain.rollout.progress_deadline import progress_deadline
from rollout.domain.rollout.snapshot import Needs, Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.messages import Action, Activation, Phase
from rollout.models import Operation, Rollout
from rollout.projections.counters import COUNTERS, counter_of

if TYPE_CHECKING:
    pass

from tests.simulation.event_rules import EventRules


class RestRules(EventRules):
    # --- When a rollout has come to rest

    def at_rest(self, uid: str, state: RolloutState, fleet: Snapshot) -> None:
        """What is scheduled waits for something that comes, by a person or by a clock."""
        self.world.rules.knows_one_way(self.world.rows.rollouts[uid], state)
        if not fleet.counts[Phase.SCHEDULED]:
            self.holds(state.phase.is_final or self._is_awaited(uid, state, fleet), "every rollout waits for something")
            return
        waits = (
            state.phase in {RolloutPhase.PAUSED, RolloutPhase.PENDING_APPROVAL}
            or fleet.frozen
            or fleet.needs == Needs.PENDING
            or not is_start_due(state, fleet)
            or state.wave_phase in {WavePhase.SOAKING, WavePhase.GATED}
            or state.waits_for_promotion
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
                # An operation that puts only files in place leaves what is loaded.
                is_loaded = ended.activation == Activation.LOAD or (is_there is not None and is_there[1])
                wanted = (ended.content_sha256, is_loaded)
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
