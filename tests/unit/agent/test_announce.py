"""Which reports are sent at once."""

from types import SimpleNamespace
from typing import Any

import pytest

from rollout.agent.operations import announce
from rollout.agent.operations.announce import Announcer
from rollout.messages import Phase, Reason, Report
from tests.waiting import wait_for

NAMES: dict[str, Any] = {"rollout": "r1", "node": "n1", "module_name": "greet", "generation": 1, "attempt": 1}
LOADING = Report(**NAMES, phase=Phase.LOADING)
HANGS = Report(**NAMES, phase=Phase.LOADING, reason=Reason.SERVER_HANGS)
DONE = Report(**NAMES, phase=Phase.SUCCEEDED)


@pytest.fixture
def sent():
    return []


@pytest.fixture
def announcer(sent):
    publisher: Any = SimpleNamespace(send=lambda message, **_: sent.extend(message.reports))
    return Announcer(publisher)


def test_a_phase_that_lasts_is_sent(announcer, sent):
    announcer(LOADING)
    wait_for(lambda: sent == [LOADING])


def test_a_phase_that_does_not_last_is_not_sent(announcer, sent, monkeypatch):
    monkeypatch.setattr(announce, "LASTING_SECONDS", 3600.0)
    announcer(LOADING)
    announcer(DONE)
    assert sent == [DONE]


def test_what_happens_in_a_phase_is_sent_at_once(announcer, sent, monkeypatch):
    monkeypatch.setattr(announce, "LASTING_SECONDS", 3600.0)
    announcer(LOADING)
    announcer(HANGS)
    assert sent == [HANGS]
