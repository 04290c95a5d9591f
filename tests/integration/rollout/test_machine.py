"""Random interleavings of everything that can happen to a small fleet.

In hand may exceed `max_parallel` in one case only: a node seemed offline, its slot was given away, and it turns out to
work on it after all.
"""

from collections import Counter
from datetime import timedelta
from functools import partial

import pytest
from django.db import transaction
from django.db.models import Q
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from eventstore import acting_as, database_now, head, load, read
from rollout.delivery import ingestion
from rollout.delivery.ingestion import heartbeats, reports
from rollout.domain.errors import RolloutError
from rollout.domain.placement.events import OperationGivenBack, placement_stream
from rollout.domain.retries import Retries
from rollout.domain.rollout.events import (
    FINAL_ROLLOUT_PHASES,
    NodesReleased,
    RollbackStarted,
    RolloutResumed,
    WaveFailed,
    rollout_stream,
)
from rollout.domain.strategy import Gate, Offline, OnAbort, OnFailure
from rollout.messages import FINAL_PHASES, RUNNING_PHASES, Action, Phase, Reason, Report, to_json
from rollout.models import (
    FleetFreeze,
    Liveness,
    Node,
    NodeFacts,
    NodeModule,
    Operation,
    Placement,
    Rollout,
    ShardMember,
)
from rollout.process import offline_nodes, timeouts
from rollout.process.advance import advance_all
from rollout.process.manager import ProcessManager
from rollout.projections.counters import COUNTERS, counter_of, state_of
from rollout.projections.nodes import state_of as state_of_placement
from rollout.queries import snapshot
from rollout.queries.rollouts import unfinished_rollouts
from rollout.services import freeze, nodes, rollback, rollouts
from rollout.services.freeze import freeze_fleet, thaw_fleet
from rollout.services.nodes import activate_node, decommission_node, drain_node
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import (
    abort_rollout,
    approve_rollout,
    cancel_node,
    pause_rollout,
    promote_rollout,
    reject_rollout,
    resume_rollout,
    retry_rollout,
)
from tests.causes import gaps
from tests.environment import number_in
from tests.recorded_fleet import (
    differences,
    grew,
    heartbeat_of,
    installed,
    inventory,
    join,
    overdue,
    silence,
    start,
    upload,
)
from tests.simulation.snapshot import Rows, snapshot_of

pytestmark = pytest.mark.slow

NODES = ("a", "b", "c", "d")
WORK = sorted(RUNNING_PHASES)
ANSWERS = [Phase.SUCCEEDED, Phase.FAILED, Phase.SKIPPED, Phase.CANCELED]
IN_PROGRESS = [Phase.QUEUED, *WORK]
STRATEGIES = st.fixed_dictionaries(
    {},
    optional={
        "canary": st.sampled_from([0, 1, "50%"]),
        "waves": st.lists(st.sampled_from([1, 2, "25%"]), max_size=2).map(tuple),
        "max_parallel": st.sampled_from([1, 2, "50%"]),
        "min_healthy": st.sampled_from([1, 2, "25%"]),
        "max_failures": st.sampled_from([1, "50%", "100%"]),
        "on_failure": st.sampled_from(OnFailure),
        "on_abort": st.sampled_from(OnAbort),
        "gate": st.sampled_from(Gate),
        "offline": st.sampled_from(Offline),
        "retries": st.builds(Retries, limit=st.integers(0, 2), backoff_seconds=st.just(0.0)),
        "soak_seconds": st.just(0.001),
        "approval": st.booleans(),
    },
)
VERBS = [
    lambda uid: approve_rollout(uid, by=2, remark="go"),
    lambda uid: reject_rollout(uid, remark="no"),
    pause_rollout,
    resume_rollout,
    promote_rollout,
    abort_rollout,
    retry_rollout,
    roll_back_rollout,
]
#: Rounds in which everybody answers, and those after which a person aborts what `min_healthy` leaves no room for.
ROUNDS, HOPEFUL_ROUNDS = 100, 60


class Fleet(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        upload()
        upload(version=2, content="c2")
        self.began = head()
        join(*NODES)
        self.process_manager = ProcessManager()
        self.rollouts = []
        self.asked = []  # every command that a node may still have somewhere

    def teardown(self):
        try:
            self.everybody_answers()
        finally:
            transaction.set_rollback(True)
            self.atomic.__exit__(None, None, None)

    # --- What people do

    @rule(
        version=st.sampled_from([1, 2]),
        action=st.sampled_from(Action),
        supersede=st.booleans(),
        nodes=st.none() | st.lists(st.sampled_from(NODES), min_size=1, unique=True).map(tuple),
        careful=st.none() | STRATEGIES,
    )
    def start(self, version, action, supersede, nodes, careful):
        self.tried(
            lambda: self.rollouts.append(
                start(
                    version=version,
                    action=action,
                    supersede=supersede,
                    nodes=nodes,
                    careful=careful,
                    **({"max_parallel": 2} if careful is None else {}),
                    released=False,
                )
            )
        )

    @precondition(lambda self: self.rollouts)
    @rule(data=st.data(), verb=st.sampled_from(VERBS))
    def steer(self, data, verb):
        uid = self.tried(lambda: verb(data.draw(st.sampled_from(self.rollouts))))
        if uid and uid not in self.rollouts:
            self.rollouts.append(uid)

    @precondition(lambda self: self.rollouts)
    @rule(data=st.data(), name=st.sampled_from(NODES), force=st.booleans())
    def cancel(self, data, name, force):
        uid = data.draw(st.sampled_from(self.rollouts))
        self.tried(lambda: cancel_node(uid, name, force=force))

    @rule(is_frozen=st.booleans())
    def freeze(self, is_frozen):
        self.tried(partial(freeze_fleet, "night") if is_frozen else thaw_fleet)

    @rule(
        name=st.sampled_from(NODES),
        verb=st.sampled_from([drain_node, activate_node, decommission_node]),
    )
    def order(self, name, verb):
        self.tried(lambda: verb(name))

    # --- What nodes do

    @rule(name=st.sampled_from(NODES), hello=st.booleans(), has=st.sampled_from([(), (1,), (2,)]))
    def heartbeat(self, name, hello, has):
        ingestion.record_heartbeats([heartbeat_of(name, hello=hello, modules=[installed(version) for version in has])])

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), phase=st.sampled_from([*WORK, *ANSWERS]), times=st.integers(1, 2))
    def report(self, data, phase, times):
        reports = data.draw(st.lists(st.sampled_from(self.asked), min_size=1, max_size=4))
        given = [
            Report(
                **each,
                phase=phase,
                reason=Reason.FETCH_FAILED if phase == Phase.FAILED else None,
                inventory=inventory(installed()) if phase.is_final else None,
            )
            for each in reports
        ]
        ingestion.record_reports([to_json(each) for each in given] * times)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), shift=st.sampled_from([(1, 0), (0, 1), (-1, 0)]), phase=st.sampled_from(Phase))
    def confused_report(self, data, shift, phase):
        asked = data.draw(st.sampled_from(self.asked))
        numbers = {"generation": asked["generation"] + shift[0], "attempt": asked["attempt"] + shift[1]}
        ingestion.record_reports([to_json(Report(**{**asked, **numbers}, phase=phase))])

    # --- What time does

    @rule(name=st.sampled_from(NODES))
    def fall_silent(self, name):
        silence(name)
        offline_nodes.declare_silent_nodes_offline()

    @rule(name=st.sampled_from(NODES))
    def take_too_long(self, name):
        with transaction.atomic():
            before = list(Operation.objects.filter(node=name, deadline_at__isnull=False).values("key", "deadline_at"))
            overdue(name)
            timeouts.end_overdue_operations()
            for row in before:  # those that did not time out keep the deadline that the log tells
                Operation.objects.filter(key=row["key"], deadline_at__isnull=False).update(
                    deadline_at=row["deadline_at"]
                )

    @rule()
    def sweep(self):
        timeouts.end_operations_of_decommissioned_nodes()
        self.process_manager.poll()
        self.nothing_is_missed()
        self.note_commands()

    def nothing_is_missed(self):
        """What the relay has not looked at would have done nothing; unless its moment has come meanwhile."""
        due = {uid for uid, at in self.process_manager._wakes.items() if at <= database_now() + timedelta(seconds=1)}
        assert grew(lambda: advance_all(set(unfinished_rollouts()) - due)) == 0

    def note_commands(self):
        for each in Operation.objects.filter(phase__in=IN_PROGRESS):
            asked = {
                "rollout": each.rollout,
                "node": each.node,
                "module_name": each.module_name,
                "generation": each.generation,
                "attempt": each.attempt,
            }
            if asked not in self.asked:
                self.asked.append(asked)

    # --- What always holds

    @invariant()
    def what_always_holds(self):
        self.note_commands()
        rows = Rows(
            rollouts={each.uid: each for each in Rollout.objects.all()},
            operations={each.key: each for each in Operation.objects.all()},
            nodes={each.name: each for each in Node.objects.all()},
            modules={each.key: each for each in NodeModule.objects.all()},
            placements={(each.node, each.module_name): state_of_placement(each) for each in Placement.objects.all()},
            freeze=FleetFreeze.objects.first(),
            former=list(Operation.attempts.filter(former=True)),
            members={each.node: each for each in ShardMember.objects.all()},
            heard=lambda name: Liveness.objects.get(node=name),
            servers=lambda name: NodeFacts.objects.get(node=name).server,
            restarting_at=lambda name: Liveness.objects.get(node=name).restarting_at,
        )
        self.one_live_operation_per_placement(rows)
        for rollout in rows.rollouts.values():
            self.counters_are_what_the_rows_say(rollout, rows.of(rollout.uid))
            self.no_more_in_hand_than_allowed(rollout, rows.of(rollout.uid))
            self.the_simulation_sees_what_the_control_plane_sees(rollout, rows)

    def one_live_operation_per_placement(self, rows):
        live = [each for each in rows.operations.values() if not each.behind and each.phase not in FINAL_PHASES]
        assert len({(each.node, each.module_name) for each in live}) == len(live)

    def counters_are_what_the_rows_say(self, rollout, operations):
        counters = [(vars(rollout), operations)]
        for number, wave in enumerate(rollout.waves):
            counters.append((wave, [each for each in operations if each.wave == number]))
        for counted, some in counters:
            phases = Counter(counter_of(each.phase) for each in some)
            assert {name: counted[name] for name in COUNTERS} == {name: phases[name] for name in COUNTERS}
            assert counted["total"] == len(some)

    def no_more_in_hand_than_allowed(self, rollout, operations):
        state = state_of(rollout)
        in_hand = [each for each in operations if each.phase in IN_PROGRESS]
        if len(in_hand) > (allowed := state.strategy.parallel(state.nodes)):
            assert len(in_hand) - sum(self.was_given_back(each) for each in in_hand) <= allowed

    def was_given_back(self, operation):
        events = [each.event for each in load(placement_stream(operation.node, operation.module_name))]
        return any(isinstance(each, OperationGivenBack) and each.rollout == operation.rollout for each in events)

    def the_simulation_sees_what_the_control_plane_sees(self, rollout, rows):
        if rollout.phase not in FINAL_ROLLOUT_PHASES:
            state, now = state_of(rollout), database_now()
            assert snapshot.snapshot_of(rollout.uid, state, now=now) == snapshot_of(rollout.uid, state, rows, now=now)

    @invariant()
    def what_is_in_hand_has_a_deadline(self):
        in_hand, ended = Q(phase__in=IN_PROGRESS), Q(phase__in=FINAL_PHASES)
        assert not Operation.objects.filter(in_hand ^ Q(deadline_at__isnull=False)).exists()
        assert not Operation.objects.filter(ended ^ Q(finished_at__isnull=False)).exists()

    # --- The end

    def everybody_answers(self):
        """Then every rollout ends, and the rows are those that the log tells."""
        self.tried(thaw_fleet)
        for name in NODES:
            ingestion.record_heartbeats([heartbeat_of(name, hello=True)])
            if Node.objects.get(name=name).draining:
                self.tried(partial(activate_node, name))
        for number in range(ROUNDS):
            self.sweep()
            self.answer()
            unfinished = list(Rollout.objects.exclude(phase__in=FINAL_ROLLOUT_PHASES).values_list("uid", flat=True))
            if not unfinished:
                break
            for uid in unfinished:
                self.help(uid, is_hopeful=number < HOPEFUL_ROUNDS)
        assert not Rollout.objects.exclude(phase__in=FINAL_ROLLOUT_PHASES).exists()
        self.nothing_was_released_after_a_threshold()
        self.what_was_to_be_restored_was_scheduled()
        assert differences() == {}
        assert gaps(read(after=self.began)) == []

    def nothing_was_released_after_a_threshold(self):
        for uid in self.rollouts:
            is_stopped = False
            for event in (each.event for each in load(rollout_stream(uid))):
                is_stopped |= isinstance(event, WaveFailed)
                is_stopped &= not isinstance(event, RolloutResumed | RollbackStarted)
                assert not (is_stopped and isinstance(event, NodesReleased))

    def what_was_to_be_restored_was_scheduled(self):
        """Who chooses the nodes of a rollback and who decides about each of them are of one mind."""
        for uid in self.rollouts:
            for event in (each.event for each in load(rollout_stream(uid))):
                if isinstance(event, RollbackStarted):
                    undone = Operation.attempts.filter(rollout=uid, rollback=True).values_list("node", flat=True)
                    assert set(undone) == set(event.nodes)
                    assert set(event.nodes).isdisjoint(node for each in event.left_alone for node in each.nodes)

    def answer(self):
        reports = [
            Report(
                rollout=each.rollout,
                node=each.node,
                module_name=each.module_name,
                generation=each.generation,
                attempt=each.attempt,
                phase=Phase.SUCCEEDED,
            )
            for each in Operation.objects.filter(phase__in=IN_PROGRESS)
        ]
        ingestion.record_reports([to_json(each) for each in reports])

    def help(self, uid, *, is_hopeful):
        self.tried(lambda: approve_rollout(uid, by=2, remark="go"))
        self.tried(lambda: resume_rollout(uid))
        self.tried(lambda: promote_rollout(uid))
        if not is_hopeful:
            self.tried(lambda: abort_rollout(uid))

    def tried(self, function):
        try:
            with acting_as("user:alice"):
                return function()
        except RolloutError:
            return None


def run(examples):
    run_state_machine_as_test(
        Fleet,
        settings=settings(
            max_examples=number_in("MODFLEET_EXAMPLES", examples),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_whatever_happens(db):
    run(15)


def test_the_relay_alone_moves_rollouts_on(db, monkeypatch):
    """Whoever else appends dies before it does."""
    for module in (rollouts, rollback):
        monkeypatch.setattr(module, "advance", lambda _: None)
    for module in (timeouts, offline_nodes, heartbeats, reports, nodes, freeze):
        monkeypatch.setattr(module, "advance_all", lambda _: {})
    run(10)
