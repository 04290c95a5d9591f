"""The rules `slow_retry` and `stall`."""

import pytest

from modfleet.proof.checker import Limits
from modfleet.proof.history import CONTROL, Kind, Way

CLOSED = "closed: reset by peer"


def repeat(proof, end, **fields):
    """Let the addition of 4, first called at 4.0, be acknowledged at `end`."""
    proof.failed_add(4.0, 4, CLOSED, **fields)
    proof.failed_add((4.0 + end) / 2, 4, CLOSED, attempt=2, **fields)
    proof.add(end - 0.01, 4, attempt=3, **fields)
    proof.server("s", {"k": (1, 2, 3, 4)})
    proof.server("r", {"k": (1, 2, 3, 4)}, master="s")


@pytest.mark.parametrize(("end", "rules"), [(5.99, []), (6.1, ["slow_retry"])])
def test_a_call_is_acknowledged_within_the_retry_time(proof, end, rules):
    proof.change(3.9, 6.0, way=Way.RESTART)
    repeat(proof, end)
    assert proof.rules() == rules


def test_the_retry_time_is_an_option(proof):
    proof.change(3.9, 6.0, way=Way.RESTART)
    repeat(proof, 7.0)
    assert proof.rules(Limits(retry_seconds=3.0)) == []


def test_the_message_says_how_long_it_took(proof):
    proof.change(3.9, 6.0, way=Way.RESTART)
    repeat(proof, 6.5)
    message = "add 4 was acknowledged after 2.500 s and 3 attempts. The limit is 2 s (during the upgrade u (m))."
    assert [each.message for each in proof.check().violations] == [message]


def test_a_client_gives_up(proof):
    proof.change(3.9, 6.0, way=Way.RESTART)
    proof.failed_add(4.0, 4, "LOADING")
    proof.get(4.1, 1, 2, 3)
    assert proof.rules() == ["slow_retry"]


@pytest.mark.parametrize(("last", "rules"), [(4.5, []), (6.5, ["slow_retry"])])
def test_the_history_ends_before_a_call_is_acknowledged(proof, last, rules):
    proof.change(3.9, 6.0, way=Way.RESTART)
    proof.failed_add(4.0, 4, "LOADING")
    proof.failed_add(last, 4, "LOADING", attempt=2)
    assert proof.rules() == rules


@pytest.mark.parametrize(("end", "rules"), [(11.9, []), (12.1, ["slow_retry"])])
def test_the_retry_time_counts_from_the_end_of_a_fault(proof, end, rules):
    proof.change(5.0, 7.0, action="kill", is_fault=True)
    proof.change(8.0, 10.0, action="cut", is_fault=True)
    proof.change(3.0, 12.0, way=Way.RESTART)
    repeat(proof, end)
    assert proof.rules() == rules


@pytest.mark.parametrize(("end", "rules"), [(7.9, []), (8.1, ["slow_retry"])])
def test_the_question_to_one_server_waits_for_its_restart(proof, end, rules):
    proof.change(3.9, 6.0, way=Way.RESTART)
    proof.call(4.0, Kind.ASK, error=CLOSED)
    proof.ask(end - 0.01, "2", attempt=2)
    assert proof.rules() == rules


@pytest.mark.parametrize(("took", "rules"), [(0.3, []), (0.4, ["stall"])])
def test_a_client_waits_longer_than_the_control_client(proof, took, rules):
    proof.get(4.0, 1, 2, 3, took=took)
    assert proof.rules(Limits(stall_ratio=3.5)) == rules


def test_the_longest_stall_is_reported_once(proof):
    proof.change(4.5, 6.0)
    for at, took in ((4.0, 0.4), (5.0, 0.5), (6.0, 0.45)):
        proof.get(at, 1, 2, 3, took=took)
    message = "get took 0.500 s while no server restarted, more than 3 x the 0.100 s of the client control (during the upgrade u (m))."
    assert [each.message for each in proof.check().violations] == [message]


def test_a_stall_at_a_restart_is_measured_only(proof):
    proof.change(3.9, 4.1, way=Way.RESTART)
    proof.get(4.0, 1, 2, 3, took=1.0)
    proof.get(9.0, 1, 2, 3, took=0.2)
    verdict = proof.check()
    assert verdict.violations == []
    stalls = verdict.longest_stall, verdict.longest_restart_stall, verdict.control_stall
    assert [round(each, 3) for each in stalls] == [0.2, 1.0, 0.1]


def test_a_short_stall_at_a_restart_is_measured_too(proof):
    proof.change(9.9, 10.1, way=Way.RESTART)
    proof.get(4.0, 1, 2, 3, took=0.2)
    proof.get(10.0, 1, 2, 3, took=0.15)
    assert round(proof.check().longest_restart_stall, 3) == 0.15


def test_stalls_are_measured_without_a_control_client(proof):
    del proof.calls[CONTROL]
    proof.get(4.0, 1, 2, 3, took=1.5)
    verdict = proof.check(Limits(stall_ratio=None))
    assert verdict.violations == []
    assert round(verdict.longest_stall, 3) == 1.5
