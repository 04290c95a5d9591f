"""Verbs, strategies and faults in any order, chosen so that what breaks a rule is made as short as it can be."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from rollout.domain.retries import Retries
from rollout.domain.strategy import Gate, Offline, OnAbort, OnFailure, Strategy
from rollout.messages import Action, Phase, Reason, Ways
from tests.environment import number_in
from tests.simulation.chance import HAPPENINGS, UNMANAGED, settle
from tests.simulation.control_plane import ZONE
from tests.simulation.orders import Deed, Script, Trouble
from tests.simulation.servers import Traits
from tests.simulation.world import World

AMOUNTS = st.integers(0, 4) | st.sampled_from(["10%", "34%", "50%", "100%"])
STRATEGIES = st.builds(
    Strategy,
    canary=AMOUNTS,
    waves=st.lists(AMOUNTS, max_size=3).map(tuple),
    max_parallel=AMOUNTS,
    min_healthy=AMOUNTS,
    max_failures=AMOUNTS,
    on_failure=st.sampled_from(OnFailure),
    on_abort=st.sampled_from(OnAbort),
    soak_seconds=st.sampled_from([0.0, 20.0]),
    gate=st.sampled_from(Gate),
    node_deadline_seconds=st.sampled_from([30.0, 300.0]),
    progress_deadline_seconds=st.sampled_from([60.0, 600.0]),
    retries=st.builds(Retries, limit=st.integers(0, 2)),
    offline=st.sampled_from(Offline),
    approval=st.booleans(),
    ready_deadline_seconds=st.sampled_from([60.0, 3600.0]),
    domain=st.sampled_from(["", ZONE]),
)
SCRIPTS = st.builds(
    Script,
    deed=st.sampled_from(Deed),
    seconds=st.sampled_from([1.0, 10.0, 120.0]),
    phase=st.sampled_from([Phase.SUCCEEDED, Phase.FAILED, Phase.SKIPPED]),
    reason=st.sampled_from([None, Reason.FETCH_FAILED, Reason.LOAD_FAILED]),
    obeys_cancel=st.booleans(),
    dies_at=st.sampled_from([0.2, 5.0]),
    before_seconds=st.sampled_from([0.0, 20.0]),
    trouble=st.sampled_from(Trouble),
)
TRAITS = st.builds(
    Traits,
    is_stock=st.booleans(),
    keeps=st.sampled_from(["aof", "save", ""]),
    min_replicas=st.integers(0, 1),
    restart=st.sampled_from(["shutdown", "command"]),
    keeps_role=st.booleans(),
)


#: Each wait for a replica without an agent takes an hour of steps: `test_mass.py` has them.
KINDS = sorted(HAPPENINGS.keys() - {*UNMANAGED})


class Fleet(RuleBasedStateMachine):
    @initialize(
        masters=st.lists(st.integers(-1, 5), min_size=1, max_size=6),
        hosts=st.integers(1, 6),
        scripts=st.lists(SCRIPTS, min_size=1, max_size=6),
        is_faulty=st.booleans(),
        traits=st.just([Traits()]) | st.lists(TRAITS, min_size=1, max_size=3),
        typed=st.frozensets(st.integers(1, 2)),
    )
    def join(self, masters, hosts, scripts, is_faulty, traits, typed):
        self.world = World(
            nodes=0, scripts=lambda _, order: scripts[(int(order.node[1:]) + order.attempt) % len(scripts)]
        )
        for number, master in enumerate(masters):
            above = f"n{master:03d}" if 0 <= master < number else ""
            self.world.join(
                f"n{number:03d}",
                master=above,
                host=f"host {number % hosts}",
                zone="ab"[number % 2],
                traits=traits[number % len(traits)],
            )
        self.world.typed = typed
        self.world.run(20)
        self.world.is_faulty = is_faulty

    @rule(
        strategy=STRATEGIES,
        version=st.integers(1, 2),
        action=st.sampled_from(Action),
        supersede=st.booleans(),
        ways=st.sampled_from(Ways),
        may_interrupt=st.booleans(),
        may_discard_data=st.booleans(),
    )
    def start(self, strategy, **more):
        self.world.tried(self.world.start, strategy, **more)

    @precondition(lambda self: self.world.uids)
    @rule(data=st.data(), kind=st.sampled_from(KINDS))
    def happen(self, data, kind):
        name = data.draw(st.sampled_from(sorted(self.world.agents)))
        HAPPENINGS[kind](self.world, name, data.draw(st.sampled_from(self.world.uids)))

    @rule(seconds=st.sampled_from([1.0, 15.0, 100.0, 700.0]))
    def wait(self, seconds):
        self.world.run(seconds)

    def teardown(self):
        if hasattr(self, "world"):
            settle(self.world)


@pytest.mark.slow
def test_whatever_happens_the_rules_hold():
    run_state_machine_as_test(
        Fleet,
        settings=settings(
            max_examples=number_in("MODFLEET_EXAMPLES", 15) * 4,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
