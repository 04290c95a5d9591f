"""A signal to a process of the cluster reaches that one only."""

import os
import signal

import pytest

from modfleet.processes import Process, Processes


def test_hurrying_one_that_never_started_hurts_nobody(tmp_path):
    processes = Processes(tmp_path, print)
    with pytest.raises(FileNotFoundError):
        processes.start("none", [str(tmp_path / "no-such-program")])
    processes.hurry()
    processes.stop()


def test_a_signal_to_nobody_is_none(tmp_path):
    process = Process("none", ["true"], os.environ, tmp_path)
    process.send(signal.SIGKILL)
    assert process.pid == 0
