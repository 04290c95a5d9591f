"""Explanations: of the same state and the same fleet as the decisions, in whole sentences."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from rollout.domain.explanation.facts import NodeFacts, Nodes, RolloutFacts
from rollout.domain.explanation.node import explain_node
from rollout.domain.explanation.rollout import explain_rollout
from rollout.domain.explanation.rules import RULES, Rule, text_of
from rollout.domain.node.state import NodePhase
from rollout.domain.reasons import WORDS
from rollout.domain.retries import Retries
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import (
    RolloutApproved,
    RolloutPaused,
    RolloutStarted,
    WaveGated,
    WavePassed,
    WaveSoaking,
    WaveStarted,
)
from rollout.domain.rollout.releasable import Ready
from rollout.domain.rollout.snapshot import Needs, Snapshot, WaveCounts
from rollout.domain.rollout.step import step
from rollout.domain.strategy import Gate, Strategy
from rollout.messages import Action, Activation, Phase, Reason

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
SCENE = RolloutFacts(since=NOW, actor="alice")
DOCS = Path(__file__).parents[3] / "docs" / "reference" / "why.md"


def started(*waves, **strategy):
    return RolloutStarted(
        rollout="r1",
        action=Action.INSTALL,
        module_name="greet",
        version=1,
        activation=Activation.LOAD,
        total=sum(waves or (4,)),
        waves=waves or (4,),
        named=False,
        strategy=Strategy(**{"max_parallel": 2, **strategy}),
    )


def fleet(ready="", *, scheduled=0, queued=0, succeeded=0, **more):
    counts = {Phase.SCHEDULED: scheduled, Phase.QUEUED: queued, Phase.SUCCEEDED: succeeded}
    return Snapshot(
        **{
            "now": NOW,
            "counts": counts,
            "waves": (WaveCounts(total=sum(counts.values()), ended=succeeded),),
            "ready": tuple(Ready(node=each) for each in ready),
            "progressed_at": NOW,
            **more,
        }
    )


def why(events, fleet_, scene=SCENE):
    return explain_rollout(ROLLOUT.fold(events), events[0], fleet_, scene)


def waits(explained):
    return [each.what for each in explained.waits_for]


UNDER_WAY = (started(), WaveStarted(rollout="r1", wave=0))


def test_it_works():
    paused = RolloutPaused(rollout="r1", reason=Reason.ERROR_THRESHOLD, message="1 node of wave 0 failed.")
    scene = replace(SCENE, failed=("a: load_failed",))
    explained = why((*UNDER_WAY, paused), fleet(scheduled=4), scene)
    assert explained.rule == Rule.MAX_FAILURES
    assert explained.summary == (
        "Paused since 2026-01-01 00:00:00 UTC by the rule max_failures: 1 node of wave 0 failed. a: load_failed. "
        "It waits for a person to resume it, roll it back or abort it."
    )


@pytest.mark.parametrize(
    ("events", "fleet_", "expected"),
    [
        ((started(approval=True),), fleet(scheduled=4), Rule.APPROVAL),
        ((started(start_at=LATER),), fleet(scheduled=4), Rule.START_AT),
        (
            (started(approval=True, start_at=LATER), RolloutApproved(rollout="r1", remark="")),
            fleet(scheduled=4),
            Rule.START_AT,
        ),
        ((started(),), fleet(scheduled=4, needs=Needs.PENDING), Rule.NEEDS),
        ((started(),), fleet(scheduled=4, frozen=True), Rule.FROZEN),
        ((started(),), fleet(scheduled=4), Rule.NEXT_STEP),
        ((*UNDER_WAY,), fleet("ab", scheduled=2, queued=2), Rule.MAX_PARALLEL),
        ((started(min_healthy=4), UNDER_WAY[1]), fleet("ab", scheduled=4, healthy=4), Rule.MIN_HEALTHY),
        ((*UNDER_WAY,), fleet("ab", scheduled=4), Rule.NEXT_STEP),
        ((*UNDER_WAY, WaveSoaking(rollout="r1", wave=0, until=LATER)), fleet(succeeded=4), Rule.SOAK),
        (
            (started(1, 3), UNDER_WAY[1], WaveGated(rollout="r1", wave=0)),
            fleet(succeeded=1, scheduled=3, waves=(WaveCounts(total=1, ended=1), WaveCounts(total=3, ended=0))),
            Rule.GATE,
        ),
    ],
)
def test_the_rule_is_the_one_that_keeps_it(events, fleet_, expected):
    assert why(events, fleet_).rule == expected


EVENTS = st.sampled_from(
    [
        (started(),),
        (started(approval=True),),
        (started(start_at=LATER),),
        UNDER_WAY,
        (*UNDER_WAY, WaveSoaking(rollout="r1", wave=0, until=LATER)),
        (started(2, 2, gate=Gate.MANUAL), UNDER_WAY[1], WaveGated(rollout="r1", wave=0)),
        (started(2, 2), UNDER_WAY[1], WavePassed(rollout="r1", wave=0)),
        (*UNDER_WAY, RolloutPaused(rollout="r1", reason=Reason.MANUAL)),
    ]
)


@given_any(
    EVENTS,
    st.booleans(),
    st.sampled_from(Needs),
    st.integers(0, 4),
    st.sampled_from(["", "a", "abc"]),
    st.integers(0, 4),
)
def test_it_says_next_step_exactly_when_there_is_one(events, frozen, needs, queued, ready, healthy):
    seen = fleet(ready, scheduled=4 - queued, queued=queued, frozen=frozen, needs=needs, healthy=healthy)
    taken = step(ROLLOUT.fold(events), events[0], seen)
    explained = why(events, seen, replace(SCENE, in_progress=Nodes(count=queued, names=("x",) * queued)))
    assert (Rule.NEXT_STEP in waits(explained)) == bool(taken.events or taken.commands)
    assert explained.waits_for


def place(**more):
    given = {"name": "a", "node_phase": NodePhase.ONLINE, "wave": 0, "phase": Phase.SCHEDULED, "since": NOW}
    return NodeFacts(**{**given, **more})


def why_node(place_, fleet_=None, events=UNDER_WAY):
    seen = fleet("bc", scheduled=2, queued=2) if fleet_ is None else fleet_
    return explain_node(ROLLOUT.fold(events), events[0], seen, SCENE, place_)


@pytest.mark.parametrize(
    ("place_", "expected"),
    [
        (place(), Rule.MAX_PARALLEL),
        (place(wave=1), Rule.WAVE_TURN),
        (place(behind="r0"), Rule.BEHIND),
        (place(node_phase=NodePhase.OFFLINE), Rule.OFFLINE_WAIT),
        (place(node_phase=NodePhase.DRAINING), Rule.DRAINING),
        (place(node_phase=NodePhase.DECOMMISSIONED), Rule.DECOMMISSIONED),
        (place(ready_at=LATER), Rule.RETRY_BACKOFF),
        (place(phase=Phase.LOADING, deadline_at=LATER), Rule.NODE_DEADLINE),
        (place(phase=Phase.SUCCEEDED), Rule.NODE_ANSWER),
        (place(phase=Phase.SKIPPED, wave=-1, reason=Reason.NODE_DRAINING), Rule.SKIPPED_FROM_START),
        (place(phase=Phase.TIMED_OUT, reason=Reason.NODE_DEADLINE), Rule.NODE_DEADLINE),
        (place(phase=Phase.FAILED, reason=Reason.NODE_UNREACHABLE), Rule.OFFLINE),
        (place(phase=Phase.CANCELED, reason=Reason.NEWER_ROLLOUT), Rule.NEWER_ROLLOUT),
        (place(phase=Phase.CANCELED, reason=Reason.MISSING_DEPENDENCY), Rule.NEEDS),
        (place(phase=Phase.FAILED, reason=Reason.MISSING_DEPENDENCY), Rule.NODE_ANSWER),
    ],
)
def test_the_rule_is_the_one_that_keeps_or_ended_the_node(place_, expected):
    assert why_node(place_).rule == expected


def test_a_node_that_is_released_at_the_next_step_waits_for_nothing_else():
    seen = fleet("ab", scheduled=4)
    assert waits(why_node(place(), seen)) == [Rule.NEXT_STEP]
    assert waits(why_node(place(name="d"), seen)) == [Rule.MAX_PARALLEL]


def test_a_node_that_is_tried_again_says_so():
    failed = place(phase=Phase.FAILED, reason=Reason.FETCH_FAILED)
    seen = fleet(scheduled=3, retriable=(("a", 1),))
    assert waits(why_node(failed, seen, (started(retries=Retries()), UNDER_WAY[1]))) == [Rule.NEXT_STEP]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_meaning_and_a_hint(reason):
    words = WORDS[reason]
    assert words.meaning.endswith(".")
    assert words.hint.endswith(".")
    assert f"{words.meaning} {words.hint}" in why_node(place(phase=Phase.FAILED, reason=reason)).summary


@pytest.mark.parametrize("rule", Rule)
def test_every_rule_has_its_sentence_with_numbers(rule):
    text = text_of(rule, ROLLOUT.fold(UNDER_WAY))
    assert text.endswith(".")
    assert "{" not in text


def test_the_reference_has_every_rule_and_every_reason():
    lines = DOCS.read_text().splitlines()
    for rule in Rule:
        assert f"| `{rule}` | {RULES[rule]} |" in lines
    for reason in Reason:
        assert f"| `{reason}` | {WORDS[reason].meaning} | {WORDS[reason].hint} |" in lines


def test_at_most_five_nodes_are_named():
    assert str(Nodes(count=2, names=("a", "b"))) == "a, b"
    assert str(Nodes(count=7, names=("a", "b", "c", "d", "e"))) == "a, b, c, d, e and 2 more"
