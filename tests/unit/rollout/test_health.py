"""Which heartbeats degrade a node."""

from dataclasses import replace

import pytest

from rollout.domain.node.health import DOCTOR_FAILED, NOT_EXAMINED, Degradation, degradation_of
from rollout.messages import Finding, FindingStatus, Heartbeat, Inventory, NodeProfile, ServerProblem, ServerState

USABLE = ServerState(run_id="a")
AWAY = ServerState(problem=ServerProblem.SERVER_UNREACHABLE, message="The server cannot be reached.")
KNOWN = Degradation(reason="server_loading", message="The server is loading its data.")


def heartbeat(facts=USABLE, *findings, doctor=()):
    return Heartbeat(
        node="n1",
        hello=False,
        interval_seconds=10,
        profile=NodeProfile(platform="linux/x86_64"),
        inventory=Inventory(sequence=1),
        facts=facts,
        doctor=findings or doctor,
    )


def finding(status, check="include_line"):
    return Finding(check=check, status=status, message="It is so.")


def judged(message, known=None, *, joins=False):
    return degradation_of(message, known, joins=joins)


@pytest.mark.parametrize("known", [None, KNOWN])
def test_a_usable_server_and_no_failed_check(known):
    warned = [finding(status) for status in FindingStatus if status != FindingStatus.FAIL]
    assert judged(heartbeat(USABLE, *warned), known) is None
    assert judged(heartbeat(), known) is None


def test_a_server_that_cannot_be_used():
    found = judged(heartbeat(AWAY, finding(FindingStatus.FAIL)))
    assert found == Degradation(reason="server_unreachable", message="The server cannot be reached.")


@pytest.mark.parametrize("known", [None, KNOWN])
def test_a_server_that_an_operation_restarts(known):
    """The operation says how that ends. If it has failed, the problem counts."""
    away = replace(AWAY, maintenance="restart", would_start="no")
    assert judged(heartbeat(away, finding(FindingStatus.FAIL)), known) == known
    found = judged(heartbeat(replace(AWAY, maintenance="recovery")), known)
    assert found == Degradation(reason="server_unreachable", message="The server cannot be reached.")


def test_a_problem_of_a_newer_agent_counts():
    assert judged(heartbeat(ServerState(problem="server_on_fire"))).reason == "server_on_fire"


@pytest.mark.parametrize("doctor", [None, (finding(FindingStatus.FAIL),)])
def test_a_server_that_would_not_start_again(doctor):
    facts = ServerState(run_id="a", would_start="no", would_start_reason="/x.so does not exist.")
    found = judged(heartbeat(facts, doctor=doctor))
    assert found == Degradation(
        reason="would_not_start", message="The server would not start again: /x.so does not exist."
    )


@pytest.mark.parametrize("result", ["yes", "unknown", ""])
def test_a_server_that_may_start_again(result):
    assert judged(heartbeat(ServerState(run_id="a", would_start=result, would_start_reason="Why."))) is None


def test_a_failed_check():
    one = judged(heartbeat(USABLE, finding(FindingStatus.FAIL), finding(FindingStatus.WARN, "clock")))
    assert (one.reason, "include_line" in one.message, "clock" in one.message) == (DOCTOR_FAILED, True, False)
    two = judged(heartbeat(USABLE, finding(FindingStatus.FAIL), finding(FindingStatus.FAIL, "clock")))
    assert "include_line, clock" in two.message


@pytest.mark.parametrize("known", [None, KNOWN])
def test_an_older_agent_is_not_judged(known):
    assert judged(heartbeat(None, doctor=None), known) is None


@pytest.mark.parametrize("known", [None, KNOWN])
def test_nothing_changes_while_the_doctor_works(known):
    assert judged(heartbeat(doctor=None), known) == known
    assert judged(heartbeat(AWAY, doctor=None), known).reason == "server_unreachable"


def test_a_node_that_joins_waits_for_the_doctor():
    assert judged(heartbeat(doctor=None), joins=True).reason == NOT_EXAMINED
    assert judged(heartbeat(), joins=True) is None
