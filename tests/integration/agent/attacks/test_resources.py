"""A module that uses too much, or says too much, in a scratch server."""

from dataclasses import replace

import pytest

from rollout.agent.scratch.server import ScratchSilentError, scratch_server
from rollout.agent.server.session import RefusedError
from rollout.messages import MOST_SCRATCH_FACTS, Phase, Reason
from tests.integration.agent.attacks.conftest import said
from tests.integration.agent.conftest import SERVERS
from tests.integration.agent.test_scratch import processes_in
from tests.waiting import wait_for

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])


def test_processes_that_escape_are_killed(binary, confinement, attacks, temporary):
    shown = confinement.showing([attacks])
    with scratch_server(binary, shown, seconds=30) as server, server.started() as session:
        with pytest.raises(RefusedError):
            session.load(str(attacks), ["escape"])
        wait_for(lambda: len(processes_in(temporary)) > 1)
    assert processes_in(temporary) == []


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("fill", "it has written too much"),
        ("many", "it has started too many processes"),
        ("shared", "it has taken too much memory"),
        ("memory", "signal 6"),
    ],
)
def test_it_cannot_use_up_the_host(binary, confinement, attacks, way, words):
    """RLIMIT_DATA counts no shared memory, RLIMIT_FSIZE one file, and RLIMIT_NPROC all processes of the user."""
    assert words in said(binary, replace(confinement, megabytes=128), attacks, way)


def test_it_cannot_spin_for_ever(binary, confinement, attacks):
    with pytest.raises(ScratchSilentError):
        said(binary, confinement, attacks, "spin", seconds=1.0)


def test_what_it_logs_is_short_and_plain(site, built):
    report = site.install(built("attacks"), command_line_args="shout farewell")
    assert report.reason is Reason.SCRATCH_LOAD_FAILED
    for text in (report.message, *report.server_log):
        assert len(text) <= 2000
        assert text.isprintable()
        assert "hunter2" not in text
    assert "farewell" in report.message


def test_what_it_adds_is_bounded(site, built):
    report = site.install(built("many"))
    assert report.phase is Phase.SUCCEEDED
    assert len(report.scratch.commands) == MOST_SCRATCH_FACTS
    assert all("\x1b" not in each for each in report.scratch.commands)
