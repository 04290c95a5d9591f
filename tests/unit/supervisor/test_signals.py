"""A signal to a process of the cluster reaches that one only."""

import os
import signal

import pytest

from modfleet.supervisor import Process, Supervisor


def test_kill_all_skips_a_process_that_never_started(tmp_path):
    supervisor = Supervisor(tmp_path, print)
    with pytest.raises(FileNotFoundError):
        supervisor.start("none", [str(tmp_path / "no-such-program")])
    supervisor.kill_all()
    supervisor.stop()


def test_a_signal_to_a_process_that_never_started_does_nothing(tmp_path):
    process = Process("none", ["true"], os.environ, tmp_path)
    process.send(signal.SIGKILL)
    assert process.pid == 0
