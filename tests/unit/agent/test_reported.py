"""What an agent reports is what the control plane takes from one."""

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from rollout.messages import (
    BROADER,
    LONGEST_LOG_LINE,
    MOST_LOG_LINES,
    REPORTED_PHASES,
    REPORTED_REASONS,
    Phase,
    Reason,
    Report,
    from_json,
    to_json,
)

ROLLOUT = Path(__file__).parents[3] / "rollout"
SOURCE = "\n".join(path.read_text() for path in [*ROLLOUT.glob("agent/**/*.py"), ROLLOUT / "readiness.py"])
REPORT = Report(
    rollout="r",
    node="n1",
    module_name="m",
    generation=1,
    attempt=1,
    phase=Phase.FAILED,
    reason=Reason.LOAD_FAILED,
    message="no",
)


def test_its_reasons():
    assert {Reason[name] for name in re.findall(r"\bReason\.([A-Z_]+)", SOURCE)} == REPORTED_REASONS


def test_its_phases():
    assert {Phase[name] for name in re.findall(r"\bPhase\.([A-Z_]+)", SOURCE)} == REPORTED_PHASES


@pytest.mark.parametrize("reason", BROADER)
def test_an_older_control_plane_gets_a_reason_that_it_knows(reason):
    """It would drop a report with an unknown one, and wait for the node until the deadline."""
    sent = to_json(replace(REPORT, reason=reason, server_log=("a line",)))
    assert (sent["reason"], sent["cause"]) == (BROADER[reason], reason)
    assert from_json(Report, sent).reason is reason


def test_a_cause_that_this_control_plane_does_not_know_is_ignored():
    sent = to_json(REPORT) | {"cause": "discovered_later"}
    assert from_json(Report, sent) == REPORT


def test_no_line_gets_into_the_log_of_a_process():
    assert "a secret" not in repr(replace(REPORT, server_log=("a secret",)))


@pytest.mark.parametrize("lines", [["x" * (LONGEST_LOG_LINE + 1)], ["x"] * (MOST_LOG_LINES + 1), ["\0"]])
def test_no_agent_sends_more_of_the_servers_log(lines):
    with pytest.raises(msgspec.ValidationError):
        from_json(Report, to_json(REPORT) | {"server_log": lines})
