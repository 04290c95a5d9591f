"""`python -m modfleet.sample` as a program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(folder, *words):
    """It is run in `folder`."""
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "modfleet.sample", *words]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)


def test_it_works(tmp_path):
    done = run(tmp_path, "out", "10203")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out/greet-1.2.3.zip\n", "")
    assert (tmp_path / "out/greet-1.2.3.zip").exists()


def test_help_builds_nothing(tmp_path):
    done = run(tmp_path, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m modfleet.sample [-h] DIRECTORY [VERSION]")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [(), ("--version",), ("out", "1.2.3"), ("out", "-1"), ("out", "1", "2")])
def test_words_that_mean_nothing_build_nothing(tmp_path, words):
    done = run(tmp_path, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "out").write_text("x")
    done = run(tmp_path, "out")
    assert (done.returncode, done.stderr) == (1, "out: File exists.\n")
