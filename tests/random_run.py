"""Everything that people, nodes and time may do to a small fleet, by chance."""

from eventstore import acting_as, transact
from rollout import clock, intake, services, verbs
from rollout.advance import advance_all
from rollout.decider.node import NODE, DecommissionNode
from rollout.errors import RolloutError
from rollout.messages import FINAL_PHASES, RUNNING_PHASES, Action, Phase, Reason
from rollout.models import Operation, Rollout
from rollout.reconcile import reconcile
from rollout.selectors import IN_HAND, unfinished_rollouts
from rollout.strategy import OnFailure, Retries
from tests.recorded_fleet import beat_of, installed, join, overdue, report_of, silence, start


class RandomRun:
    """Each `step` is one act; greet 1 and 2 are uploaded before."""

    NODES = ("a", "b", "c", "d")

    def __init__(self, chance):
        self.chance = chance
        join(*self.NODES)

    def step(self):
        self.chance.choice([self.person, self.person, self.node, self.node, self.node, self.time])()

    def person(self):
        uids = list(Rollout.objects.values_list("uid", flat=True))
        uid = self.chance.choice(uids) if uids else ""
        verb = self.chance.choice(
            [
                self.start,
                self.start,
                lambda: verbs.pause_rollout(uid),
                lambda: verbs.resume_rollout(uid),
                lambda: verbs.promote_rollout(uid),
                lambda: verbs.abort_rollout(uid),
                lambda: verbs.retry_rollout(uid),
                lambda: verbs.roll_back_rollout(uid),
                lambda: verbs.cancel_node(uid, self.name(), force=self.chance.random() < 0.5),
                lambda: verbs.freeze_fleet("night"),
                verbs.thaw_fleet,
                verbs.thaw_fleet,
                lambda: services.drain_node(self.name()),
                lambda: services.activate_node(self.name()),
                lambda: services.activate_node(self.name()),
                *[lambda: services.decommission_node(self.name())] * (self.chance.random() < 0.5),
                *[self.leave] * (self.chance.random() < 0.5),
                self.start,
                verbs.thaw_fleet,
                lambda: services.activate_node(self.name()),
            ]
        )
        try:
            with acting_as("user:alice"):
                verb()
        except RolloutError:
            pass

    def start(self):
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

    def leave(self):
        """As an older version has recorded it: what is under way there is not ended, and nothing is forgotten."""
        name = self.name()
        transact(f"node:{name}", NODE, DecommissionNode(node=name))
        if self.chance.random() < 0.5:
            services.decommission_node(name)

    def name(self):
        return self.chance.choice(self.NODES)

    def node(self):
        name = self.name()
        in_hand = list(Operation.objects.filter(phase__in=IN_HAND))
        if not in_hand or self.chance.random() < 0.3:
            modules = self.chance.choice([(), (installed(),), (installed(2, "c2"),)])
            intake.record_beats([beat_of(name, hello=self.chance.random() < 0.5, modules=modules)])
            return
        if self.chance.random() < 0.3:
            self.strange()
            return
        phases = [*sorted(RUNNING_PHASES - {Phase.CANCELING}), *sorted(FINAL_PHASES), *[Phase.SUCCEEDED] * 6]
        intake.record_reports(
            [
                report_of(each.rollout, each.node, phase, reason=Reason.FETCH_FAILED if phase == Phase.FAILED else None)
                for each in in_hand
                for phase in [self.chance.choice(phases)]
            ]
        )

    def strange(self):
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
        intake.record_reports([said])

    def time(self):
        match self.chance.randrange(5):
            case 0:
                silence(self.name())
                clock.declare_silent_nodes_offline()
            case 1:
                overdue(self.name())
                clock.end_overdue_operations()
            case 2:
                reconcile()
            case 3:
                advance_all(unfinished_rollouts())
            case 4:
                clock.end_operations_of_gone_nodes()
