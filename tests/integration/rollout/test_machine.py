"""Random interleavings of everything that can happen to a small fleet.

In hand may exceed `max_parallel` in one case only: a node seemed offline, its slot was given away, and it turns out to
work on it after all.
"""

import os
from collections import Counter

import pytest
from django.db import transaction
from django.db.models import Q
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from rollout import clock, intake, services, verbs
from rollout.advance import advance_all
from rollout.errors import RolloutError
from rollout.events import FINAL_ROLLOUT_PHASES
from rollout.messages import FINAL_PHASES, RUNNING_PHASES, Action, Phase, Report, to_json
from rollout.models import Node, Operation, Rollout
from rollout.projections.rollouts import COUNTERS, counter_of
from tests.recorded_fleet import beat_of, differences, installed, inventory, join, overdue, silence, start, upload

pytestmark = pytest.mark.slow

NODES = ("a", "b", "c", "d")
WORK = sorted(RUNNING_PHASES)
ANSWERS = [Phase.SUCCEEDED, Phase.FAILED, Phase.SKIPPED]
MAX_PARALLEL = 2
IN_HAND = [Phase.QUEUED, *WORK]


class Fleet(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        upload()
        upload(version=2, content="c2")
        join(*NODES)
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
    )
    def start(self, version, action, supersede, nodes):
        self.tried(
            lambda: self.rollouts.append(
                start(
                    version=version,
                    action=action,
                    supersede=supersede,
                    nodes=nodes,
                    max_parallel=MAX_PARALLEL,
                    released=False,
                )
            )
        )

    @precondition(lambda self: self.rollouts)
    @rule(data=st.data(), verb=st.sampled_from([verbs.abort_rollout, verbs.retry_rollout]))
    def steer(self, data, verb):
        uid = self.tried(lambda: verb(data.draw(st.sampled_from(self.rollouts))))
        if uid and uid not in self.rollouts:
            self.rollouts.append(uid)

    @rule(
        name=st.sampled_from(NODES),
        verb=st.sampled_from([services.drain_node, services.activate_node, services.decommission_node]),
    )
    def order(self, name, verb):
        self.tried(lambda: verb(name))

    # --- What nodes do

    @rule(name=st.sampled_from(NODES), hello=st.booleans(), has=st.sampled_from([(), (1,), (2,)]))
    def beat(self, name, hello, has):
        intake.record_beats([beat_of(name, hello=hello, modules=[installed(version) for version in has])])

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), phase=st.sampled_from([*WORK, *ANSWERS]), times=st.integers(1, 2))
    def report(self, data, phase, times):
        reports = data.draw(st.lists(st.sampled_from(self.asked), min_size=1, max_size=4))
        given = [
            Report(**each, phase=phase, inventory=inventory(installed()) if phase.is_final else None)
            for each in reports
        ]
        intake.record_reports([to_json(each) for each in given] * times)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), shift=st.sampled_from([(1, 0), (0, 1), (-1, 0)]), phase=st.sampled_from(Phase))
    def confused_report(self, data, shift, phase):
        asked = data.draw(st.sampled_from(self.asked))
        numbers = {"generation": asked["generation"] + shift[0], "attempt": asked["attempt"] + shift[1]}
        intake.record_reports([to_json(Report(**{**asked, **numbers}, phase=phase))])

    # --- What time does

    @rule(name=st.sampled_from(NODES))
    def fall_silent(self, name):
        silence(name)
        clock.declare_silent_nodes_offline()

    @rule(name=st.sampled_from(NODES))
    def take_too_long(self, name):
        with transaction.atomic():
            before = list(Operation.objects.filter(node=name, deadline_at__isnull=False).values("key", "deadline_at"))
            overdue(name)
            clock.end_overdue_operations()
            for row in before:  # those that did not time out keep the deadline that the log tells
                Operation.objects.filter(key=row["key"], deadline_at__isnull=False).update(
                    deadline_at=row["deadline_at"]
                )

    @rule()
    def sweep(self):
        clock.end_operations_of_gone_nodes()
        advance_all(self.rollouts)
        self.note_commands()

    def note_commands(self):
        for each in Operation.objects.filter(phase__in=IN_HAND):
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
    def one_live_operation_per_placement(self):
        self.note_commands()
        live = Operation.objects.filter(behind=False).exclude(phase__in=FINAL_PHASES)
        counted = Counter(live.values_list("node", "module_name"))
        assert not counted or max(counted.values()) == 1, counted

    @invariant()
    def counters_are_what_the_rows_say(self):
        for row in Rollout.objects.all():
            rows = Counter(
                counter_of(phase) for phase in Operation.objects.filter(rollout=row.uid).values_list("phase", flat=True)
            )
            assert {name: getattr(row, name) for name in COUNTERS} == {name: rows[name] for name in COUNTERS}
            assert row.total == rows.total()

    @invariant()
    def no_more_in_hand_than_allowed(self):
        for row in Rollout.objects.all():
            in_hand = Operation.objects.filter(rollout=row.uid, phase__in=IN_HAND)
            worked_after_all = sum(self.was_given_back(each) for each in in_hand)
            assert len(in_hand) - worked_after_all <= MAX_PARALLEL

    def was_given_back(self, operation):
        from eventstore.store import load
        from rollout.events import OperationGivenBack, placement_stream

        events = [each.event for each in load(placement_stream(operation.node, operation.module_name))]
        return any(isinstance(each, OperationGivenBack) and each.rollout == operation.rollout for each in events)

    @invariant()
    def what_is_in_hand_has_a_deadline(self):
        in_hand, ended = Q(phase__in=IN_HAND), Q(phase__in=FINAL_PHASES)
        assert not Operation.objects.filter(in_hand ^ Q(deadline_at__isnull=False)).exists()
        assert not Operation.objects.filter(ended ^ Q(finished_at__isnull=False)).exists()

    # --- The end

    def everybody_answers(self):
        """Then every rollout ends, and the rows are those that the log tells."""
        for name in NODES:
            intake.record_beats([beat_of(name, hello=True)])
            if not Node.objects.get(name=name).draining:
                continue
            services.activate_node(name)
        for _ in range(100):
            self.sweep()
            open_ = Operation.objects.filter(phase__in=IN_HAND)
            reports = [
                Report(
                    rollout=each.rollout,
                    node=each.node,
                    module_name=each.module_name,
                    generation=each.generation,
                    attempt=each.attempt,
                    phase=Phase.SUCCEEDED,
                )
                for each in open_
            ]
            if not reports:
                break
            intake.record_reports([to_json(each) for each in reports])
        self.sweep()
        assert not Rollout.objects.exclude(phase__in=FINAL_ROLLOUT_PHASES).exists()
        assert differences() == {}

    def tried(self, function):
        try:
            return function()
        except RolloutError:
            return None


def test_whatever_happens(db):
    run_state_machine_as_test(
        Fleet,
        settings=settings(
            max_examples=int(os.environ.get("MODFLEET_EXAMPLES", "15")),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
