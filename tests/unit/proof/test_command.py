"""`python -m modfleet.proof FOLDER`."""

import subprocess
import sys

import msgspec
import pytest

from modfleet.proof.checker import Verdict
from modfleet.proof.history import Kind


def run(*words):
    return subprocess.run([sys.executable, "-m", "modfleet.proof", *map(str, words)], capture_output=True, text=True)


def test_a_clean_proof(proof):
    proof.check()
    result = run(proof.folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Violations: 0\nAcknowledged calls: 4 (writes: 3, reads: 0) in 3 s\n" in result.stdout


def test_violations_are_named(proof):
    proof.server("r", {"k": (1, 2)}, master="s")
    proof.check()
    result = run(proof.folder)
    assert result.returncode == 1
    line = "lost: [client a, key k, server r, at 3.010] r: the key k lacks the acknowledged entry 3: [1, 2]"
    assert result.stdout.startswith(line)


def test_many_violations_of_a_rule_are_counted(proof):
    proof.server("s", {"k": (1, 2, 3), **{f"other{number}": () for number in range(25)}})
    proof.check()
    lines = run(proof.folder).stdout.splitlines()
    assert lines[20:22] == ["invented: and 5 more", "Violations: 25"]


def test_the_verdict_as_json(proof):
    proof.server("r", {"k": (1, 2)}, master="s")
    verdict = proof.check()
    result = run(proof.folder, "--json")
    assert result.returncode == 1
    assert msgspec.json.decode(result.stdout, type=Verdict) == verdict


def test_the_options_are_the_limits(proof):
    proof.call(4.0, Kind.GET, entries=(1, 2, 3), took=3.0)
    proof.dumps["restarted"].clear()
    proof.check()
    assert run(proof.folder).returncode == 1
    options = ("--retry-seconds", "4", "--stall-ratio", "none", "--not-restarted")
    assert run(proof.folder, *options).returncode == 0


@pytest.mark.parametrize("text", ["", "no JSON\n", '["a",1]\n', '{"client":"a"}\n'])
@pytest.mark.parametrize("name", ["history-a.ndjson", "changes.ndjson", "dump-final-s.ndjson"])
def test_a_file_that_cannot_be_read(proof, name, text):
    proof.check()
    path = proof.folder / name
    path.write_text(text or path.read_text()[:20] + "\n")
    result = run(proof.folder)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(str(proof.folder))


def test_a_folder_that_does_not_exist(tmp_path):
    result = run(tmp_path / "none")
    assert (result.returncode, result.stderr) == (2, f"{tmp_path}/none/changes.ndjson: No such file or directory.\n")


@pytest.mark.parametrize("option", [("--retry-seconds", "0"), ("--stall-ratio", "fast"), ("--stall-ratio", "nan")])
def test_an_option_is_wrong(tmp_path, option):
    assert run(tmp_path, *option).returncode == 2
