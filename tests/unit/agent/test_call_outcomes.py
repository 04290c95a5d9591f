"""The calls of the time before an upgrade, whatever has set the server's counters to zero."""

import pytest

from rollout.agent.server.call_outcomes import LONGEST_SECONDS, CallOutcomes, outcomes_in
from rollout.domain import strategy

NAMES = {"greet.hello"}


@pytest.fixture
def outcomes():
    return CallOutcomes()


def add(outcomes, at, calls, failed, run_id="r1"):
    outcomes.add(at, run_id, {"greet.hello": (calls, failed)})


def test_only_the_calls_since_then_count(outcomes):
    add(outcomes, 0, 1000, 1000)
    add(outcomes, 10, 1100, 1001)
    add(outcomes, 20, 1200, 1003)
    assert outcomes.since(10, NAMES) == (100, 2)
    assert outcomes.since(15, NAMES) == (100, 2), "the last look before"
    assert outcomes.since(5, NAMES) == (200, 3)


def test_without_a_look_before_all_calls_count(outcomes):
    add(outcomes, 100, 1000, 7)
    add(outcomes, 110, 1100, 8)
    assert outcomes.since(50, NAMES) == (1100, 8)


def test_counters_that_began_again(outcomes):
    """CONFIG RESETSTAT, or another load of the module."""
    add(outcomes, 0, 1000, 10)
    add(outcomes, 10, 5, 1)
    assert outcomes.since(0, NAMES) == (5, 1)


def test_another_process(outcomes):
    add(outcomes, 0, 1000, 10)
    add(outcomes, 10, 2000, 20, run_id="r2")
    assert outcomes.since(0, NAMES) == (2000, 20)


def test_an_unknown_command(outcomes):
    add(outcomes, 0, 1000, 10)
    assert outcomes.since(0, {"other"}) == (0, 0)


def test_old_looks_are_forgotten(outcomes):
    for at in range(0, 10_000, 10):
        add(outcomes, at, at, 0)
    assert outcomes.since(9_990 - LONGEST_SECONDS, NAMES) == (LONGEST_SECONDS, 0)
    assert outcomes.since(0, NAMES)[0] <= LONGEST_SECONDS + 10
    assert LONGEST_SECONDS == strategy.LONGEST_SETTLING_SECONDS


def test_it_reads_subcommands_and_rejected_calls():
    info = {
        "cmdstat_GREET.hello": "calls=3,usec=4,usec_per_call=1.33,rejected_calls=2,failed_calls=1",
        "cmdstat_greet.hello|sub": "calls=10,usec=4,usec_per_call=0.40,rejected_calls=0,failed_calls=0",
        "cmdstat_get": "calls=9,usec=4,usec_per_call=0.40,rejected_calls=0,failed_calls=0",
    }
    assert outcomes_in(info, NAMES) == {"greet.hello": (15, 3)}
