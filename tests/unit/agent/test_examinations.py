"""The doctor runs rarely, and no heartbeat waits for it."""

import threading
import time

import pytest

from rollout.agent.node import examinations
from rollout.agent.node.examinations import Examinations
from rollout.messages import Finding, FindingStatus
from tests.waiting import wait_for


class Doctor:
    """Counts its runs. `gate` closed: it is at work."""

    check = "noexec"

    def __init__(self):
        self.status, self.runs, self.told, self.gate = FindingStatus.PASS, 0, 0, threading.Event()
        self.gate.set()

    def __call__(self):
        self.runs += 1
        assert self.gate.wait(60)
        return (Finding(check=self.check, status=self.status, message="x" * 1000),)

    def tell(self):
        self.told += 1


@pytest.fixture
def doctor():
    return Doctor()


@pytest.fixture
def examined(doctor):
    made = Examinations(doctor, changed=doctor.tell, interval=10)
    assert made.newest("a") is None
    wait_for(lambda: made.newest("a"))
    return made


def test_it_runs_once_and_tells(doctor, examined):
    (finding,) = examined.newest("a").findings
    assert (doctor.runs, doctor.told, len(finding.message)) == (1, 1, examinations.LONGEST)


def test_a_heartbeat_does_not_wait(doctor, examined):
    doctor.gate.clear()
    assert examined.newest("b") is None
    assert examined.newest("b") is None
    doctor.gate.set()
    wait_for(lambda: examined.newest("b"))
    assert doctor.runs == 2


def test_the_findings_of_a_former_server_are_not_those_of_the_next_one(doctor, examined):
    doctor.gate.clear()
    assert examined.newest("b") is None
    assert examined.newest("c") is None  # while the doctor examines b
    doctor.gate.set()
    wait_for(lambda: examined.newest("c"))
    assert doctor.runs == 3


def test_findings_stay_until_those_of_another_setup_are_there(doctor, examined):
    former = examined.newest("a")
    doctor.gate.clear()
    doctor.status = FindingStatus.WARN
    shown = examined.newest("a", "a module")
    assert (shown.findings, shown.seconds_ago >= former.seconds_ago) == (former.findings, True)
    doctor.gate.set()
    wait_for(lambda: examined.newest("a", "a module").findings[0].status == FindingStatus.WARN)
    assert examined.newest("a", "a module").seconds_ago < 60
    assert (doctor.runs, doctor.told) == (2, 2)


def test_the_age_is_that_of_the_findings(doctor, examined, monkeypatch):
    doctor.gate.clear()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 500)
    assert 499 < examined.newest("a", "a module").seconds_ago < 600
    doctor.gate.set()


def test_it_runs_again_rarely_and_soon_after_a_failure(doctor, examined, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + examinations.EXAMINE_SECONDS - 60)
    examined.newest("a")
    assert doctor.runs == 1
    doctor.status = FindingStatus.FAIL
    monkeypatch.setattr(time, "monotonic", lambda: now + examinations.EXAMINE_SECONDS + 60)
    wait_for(lambda: examined.newest("a").findings[0].status == FindingStatus.FAIL)
    assert (doctor.runs, doctor.told) == (2, 2)
    doctor.status = FindingStatus.PASS
    monkeypatch.setattr(time, "monotonic", lambda: now + examinations.EXAMINE_SECONDS + 100)
    wait_for(lambda: examined.newest("a").findings[0].status == FindingStatus.PASS)
    assert (doctor.runs, doctor.told) == (3, 3)


def test_a_doctor_that_breaks_ends_nothing(doctor, monkeypatch):
    def broken():
        doctor.runs += 1
        raise RuntimeError("broken")

    made = Examinations(broken, changed=doctor.tell, interval=10)
    examined = wait_for(lambda: made.newest("a"))
    assert examined is not None
    assert examined.findings == ()
    assert doctor.runs == 1


@pytest.mark.parametrize("status", [FindingStatus.WARN, FindingStatus.UNKNOWN])
def test_what_is_about_the_moment_is_soon_asked_again(doctor, monkeypatch, status):
    """A rollout would skip the node for 10 minutes."""
    doctor.check, doctor.status = "failover", status
    made = Examinations(doctor, changed=doctor.tell, interval=10)
    wait_for(lambda: made.newest("a"))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 40)
    wait_for(lambda: made.newest("a") and doctor.runs == 2)
    monkeypatch.setattr(time, "monotonic", lambda: now + 80)
    made.newest("a")
    assert doctor.runs == 2  # the same again: it may last, and the doctor starts servers of its own
