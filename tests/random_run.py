"""Everything that people, nodes and time may do to a small fleet, by chance."""

from collections.abc import Callable
from random import Random

from eventstore import acting_as, transact
from rollout.delivery import ingestion
from rollout.domain.errors import RolloutError
from rollout.domain.node.commands import DecommissionNode
from rollout.domain.node.decider import NODE
from rollout.domain.retries import Retries
from rollout.domain.strategy import OnFailure
from rollout.messages import FINAL_PHASES, RUNNING_PHASES, Action, Phase, Reason
from rollout.models import Operation, Rollout
from rollout.process import offline_nodes, timeouts
from rollout.process.advance import advance_all
from rollout.queries.operations import IN_PROGRESS
from rollout.queries.rollouts import unfinished_rollouts
from rollout.reconciliation.reconciler import reconcile
from rollout.services.freeze import freeze_fleet, thaw_fleet
from rollout.services.nodes import activate_node, decommission_node, drain_node
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import (
    abort_rollout,
    cancel_node,
    pause_rollout,
    promote_rollout,
    resume_rollout,
    retry_rollout,
)
from tests.recorded_fleet import heartbeat_of, installed, join, overdue, report_of, silence, start


class RandomRun:
    """Each `step` is one act; greet 1 and 2 are uploaded before."""

    NODES = ("a", "b", "c", "d")

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        join(*self.NODES)

    def step(self) -> None:
        self.chance.choice([self.person, self.person, self.node, self.node, self.node, self.time])()

    def person(self) -> None:
        uids = list(Rollout.objects.values_list("uid", flat=True))
        uid = self.chance.choice(uids) if uids else ""
        verb: Callable[[], object] = self.chance.choice(
            [
                self.start,
                self.start,
                lambda: pause_rollout(uid),
                lambda: resume_rollout(uid),
                lambda: promote_rollout(uid),
                lambda: abort_rollout(uid),
                lambda: retry_rollout(uid),
                lambda: roll_back_rollout(uid),
                lambda: cancel_node(uid, self.name(), force=self.chance.random() < 0.5),
                lambda: freeze_fleet("night"),
                thaw_fleet,
                thaw_fleet,
                lambda: drain_node(self.name()),
                lambda: activate_node(self.name()),
                lambda: activate_node(self.name()),
                *[lambda: decommission_node(self.name())] * (self.chance.random() < 0.5),
                *[self.leave] * (self.chance.random() < 0.5),
                self.start,
                thaw_fleet,
                lambda: activate_node(self.name()),
            ]
        )
        try:
            with acting_as("user:alice"):
                verb()
        except RolloutError:
            pass

    def start(self) -> None:
        start(
            version=self.chance.choice([1, 2]),
            action=self.chance.choice([Action.INSTALL, Action.INSTALL, Action.REMOVE]),
            nodes=self.chance.choice([None, ("a", "b"), ("c",)]),
            supersede=self.chance.random() < 0.5,
            careful={
                "canary": self.chance.choice([0, 1]),
                "max_parallel": 2,
                "on_failure": self.chance.choice(list(OnFailure)),
                "retries": Retries(limit=1, backoff_seconds=0.0),
                "max_failures": self.chance.choice([0, "100%"]),
            },
            released=False,
        )

    def leave(self) -> None:
        """As an older version has recorded it: what is under way there is not ended, and nothing is forgotten."""
        name = self.name()
        transact(f"node:{name}", NODE, DecommissionNode(node=name))
        if self.chance.random() < 0.5:
            decommission_node(name)

    def name(self) -> str:
        return self.chance.choice(self.NODES)

    def node(self) -> None:
        name = self.name()
        in_hand = list(Operation.objects.filter(phase__in=IN_PROGRESS))
        if not in_hand or self.chance.random() < 0.3:
            modules = self.chance.choice([(), (installed(),), (installed(2, "c2"),)])
            ingestion.record_heartbeats([heartbeat_of(name, hello=self.chance.random() < 0.5, modules=modules)])
            return
        if self.chance.random() < 0.3:
            self.strange()
            return
        phases = [*sorted(RUNNING_PHASES - {Phase.CANCELING}), *sorted(FINAL_PHASES), *[Phase.SUCCEEDED] * 6]
        ingestion.record_reports(
            [
                report_of(each.rollout, each.node, phase, reason=Reason.FETCH_FAILED if phase == Phase.FAILED else None)
                for each in in_hand
                for phase in [self.chance.choice(phases)]
            ]
        )

    def strange(self) -> None:
        """A node says what nobody has asked, or has asked long ago; also one that has left."""
        about = self.chance.choice(list(Operation.attempts.all()))
        said = {
            "rollout": about.rollout,
            "node": self.chance.choice([about.node, self.name()]),
            "module_name": about.module_name,
            "generation": about.generation + self.chance.choice([0, 0, 1]),
            "attempt": about.attempt,
            "phase": self.chance.choice([*FINAL_PHASES, *[Phase.SUCCEEDED] * 6]),
        }
        ingestion.record_reports([said])

    def time(self) -> None:
        match self.chance.randrange(5):
            case 0:
                silence(self.name())
                offline_nodes.declare_silent_nodes_offline()
            case 1:
                overdue(self.name())
                timeouts.end_overdue_operations()
            case 2:
                reconcile()
            case 3:
                advance_all(unfinished_rollouts())
            case 4:
                timeouts.end_operations_of_decommissioned_nodes()
