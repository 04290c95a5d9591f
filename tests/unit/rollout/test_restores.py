"""A rollback against a node that does what it is asked, and whose answers come late or not at all."""

from random import Random
from typing import Any

import pytest

from rollout.domain.placement.commands import Cancel, End, RecordReport, Release, RollBack, Schedule
from rollout.domain.placement.decider import PLACEMENT
from rollout.domain.placement.desired_state import desired_after
from rollout.domain.placement.events import Target
from rollout.domain.placement.rollback import to_undo
from rollout.messages import Action, Activation, Phase, Reason, Report

PLACE: dict[str, Any] = {"node": "n1", "module_name": "greet"}


class World:
    """One module on one node. `has` is what the node really has, `coming` its answers that were not heard yet."""

    def __init__(self, seed):
        self.chance = Random(seed)
        self.state = PLACEMENT.initial
        self.has: tuple[Target, ...] = ()
        self.coming = []
        self.rollouts = []
        self.undone = set()
        #: The rollback under way, and what the node is to have after it.
        self.promised = None

    def do(self, command):
        self.state = PLACEMENT.fold(PLACEMENT.decide(self.state, command), self.state)

    def hear(self, operation, phase, reason=None):
        about = {"generation": operation.generation, "attempt": operation.attempt}
        report = Report(**PLACE, rollout=operation.rollout, **about, phase=phase, reason=reason)
        self.do(RecordReport(report=report))

    def step(self):
        live = self.state.live
        if live is None:
            self.chance.choice([self.start, self.start, self.roll_back])()
        elif live.phase == Phase.SCHEDULED:
            self.do(Release(**PLACE, rollout=live.rollout, inventory=self.has))
            while self.coming:  # to the operation before
                self.hear(*self.coming.pop())
        else:
            self.chance.choice([self.work, self.work, self.work, self.fail, self.time_out, self.cancel])(live)

    def start(self):
        uid, version = f"r{len(self.rollouts)}", self.chance.choice([1, 2, 3])
        action = self.chance.choice([Action.INSTALL, Action.INSTALL, Action.INSTALL, Action.REMOVE])
        schedule = Schedule(
            **PLACE,
            rollout=uid,
            version=version,
            action=action,
            activation=self.chance.choice([Activation.LOAD, Activation.LOAD, Activation.FILES]),
            content_sha256=f"c{version}" if action == Action.INSTALL else "",
            ordinal=0,
        )
        self.do(schedule)
        self.rollouts.append(uid)

    def roll_back(self):
        able = [uid for uid in self.rollouts if uid not in self.undone and to_undo(self.state, uid) is not None]
        if not able:
            return
        uid = self.chance.choice(able)
        self.undone.add(uid)
        undone = to_undo(self.state, uid)
        assert undone
        self.promised = (f"b-{uid}", undone.before)
        self.do(RollBack(**PLACE, rollout=uid, into=f"b-{uid}"))

    def work(self, operation):
        self.has, before = desired_after(self.has, operation), self.has
        is_same = self.has == before
        self.hear(operation, *((Phase.SKIPPED, Reason.ALREADY_INSTALLED) if is_same else (Phase.SUCCEEDED,)))
        if self.promised is not None and self.promised[0] == operation.rollout:
            assert self.has == self.promised[1]

    def fail(self, operation):
        self.hear(operation, Phase.FAILED, Reason.LOAD_FAILED)

    def time_out(self, operation):
        end = End(**PLACE, rollout=operation.rollout, phase=Phase.TIMED_OUT, reason=Reason.NODE_DEADLINE)
        self.unheard(operation, end)

    def cancel(self, operation):
        self.unheard(operation, Cancel(**PLACE, rollout=operation.rollout, force=True))

    def unheard(self, operation, end):
        """The node may have done it all the same."""
        self.do(end)
        if self.chance.random() < 0.6:
            self.has = desired_after(self.has, operation)
            self.coming = [(operation, Phase.SUCCEEDED)]

    def agrees(self):
        """What is remembered is what the node has, once everything it has said was heard."""
        state = self.state
        if state.live is not None or self.coming:
            return
        assert state.had is None or state.had == self.has
        assert not state.brought or state.brought[-1].result == self.has


@pytest.mark.parametrize("seed", range(300))
def test_a_rollback_restores_what_the_node_had(seed):
    world = World(seed)
    for _ in range(45):
        world.step()
        world.agrees()


def test_there_are_rollbacks_among_them():
    worlds = [World(seed) for seed in range(20)]
    for world in worlds:
        for _ in range(45):
            world.step()
    assert sum(len(world.undone) for world in worlds) > 20
