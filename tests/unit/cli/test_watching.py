"""What a watch shows of many waves, and when it ends."""

import pytest

from modfleet.client import RefusedError
from modfleet.commands.session import Session
from modfleet.commands.watching import WAVES_SHOWN, Lines, _first_shown
from modfleet.failure import ExitCode
from modfleet.profile import Given
from modfleet.watch import Snapshot, exit_code, next_step


def rollout(phase, *waves):
    return {
        "uid": "u1",
        "phase": phase,
        "actor": "ada",
        "rollback_of": None,
        "progress": {"skipped": 0},
        "waves": [{"wave": number, "phase": each} for number, each in enumerate(waves)],
    }


@pytest.mark.parametrize(
    ("phase", "code"),
    [
        ("succeeded", ExitCode.SUCCEEDED),
        ("failed", ExitCode.FAILED),
        ("completed_with_failures", ExitCode.FAILED),
        ("aborted", ExitCode.FAILED),
        ("rolled_back", ExitCode.FAILED),
        ("rollback_failed", ExitCode.FAILED),
        ("superseded", ExitCode.FAILED),
        ("rejected", ExitCode.FAILED),
        ("paused", ExitCode.WAITS_FOR_PERSON),
        ("pending_approval", ExitCode.WAITS_FOR_PERSON),
        ("scheduled", None),
        ("running", None),
        ("aborting", None),
        ("rolling_back", None),
    ],
)
def test_exit_code_of_each_phase(phase, code):
    assert exit_code(rollout(phase, "running", "pending")) == code


def test_a_rollback_that_worked_is_a_success():
    back = rollout("rolled_back", "passed") | {"rollback_of": "r1"}
    assert (exit_code(back), next_step(back)) == (ExitCode.SUCCEEDED, "")


def test_skipped_nodes_are_no_failure_but_are_named():
    done = rollout("succeeded")
    assert next_step(done) == ""
    skipped = done | {"progress": {"skipped": 1}}
    assert (exit_code(skipped), next_step(skipped)) == (
        ExitCode.SUCCEEDED,
        "`modfleet rollout why u1` shows why 1 node was skipped.",
    )


def test_a_failback_that_follows_is_named():
    done = rollout("succeeded") | {"failed_back_by": "u2"}
    assert (exit_code(done), "`modfleet rollout watch u2`" in next_step(done)) == (ExitCode.SUCCEEDED, True)


def test_every_phase_of_a_rollout_is_known():
    from modfleet.watch import FINAL
    from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES

    assert {each.value for each in FINAL_ROLLOUT_PHASES} == FINAL


def test_a_gate_waits_for_a_person():
    assert exit_code(rollout("running", "gated", "pending")) == ExitCode.WAITS_FOR_PERSON
    assert "gate after wave 0" in next_step(rollout("running", "gated", "pending"))


@pytest.mark.parametrize(("passed", "first"), [(0, 0), (2, 0), (10, 8), (40, 40 - WAVES_SHOWN)])
def test_the_wave_that_goes_on_is_among_those_that_fit(passed, first):
    assert _first_shown(["passed"] * passed + ["pending"] * (40 - passed)) == first


def test_few_waves_are_all_shown():
    assert _first_shown(["passed"] * 3) == 0


def test_a_line_for_each_change_even_to_what_was_before(capsys):
    lines = Lines(Session(Given(), as_json=False))
    counters = {"total": 1, "scheduled": 1, "queued": 0, "running": 0, "failed": 0, "timed_out": 0, "percent": 0}
    what = {"action": "install", "module_name": "greet", "version": 1, "progress": counters}
    for phase in ("running", "paused", "paused", "running", "paused"):
        lines.show(Snapshot(rollout=rollout(phase, "pending") | what, failures=()))
    said = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["rollout u1", "running", "paused", "running", "paused"]


def test_the_seconds_to_wait_are_said_once():
    said = "Too many failed logins: try again in 2 s."
    assert str(RefusedError(status=429, error_code="too_many_requests", description=said, retry_after="2")) == said
    busy = RefusedError(status=503, error_code="busy", description="Busy", retry_after="2")
    assert str(busy) == "Busy. Try again in 2 s."
