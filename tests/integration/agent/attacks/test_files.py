"""A module that attacks files, such as those of the live server and of the agent, in a scratch server."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.agent.scratch.confinement import CALLS, Confinement, keeper_words
from tests.integration.agent.attacks.conftest import (
    BARRED,
    NAMESPACES,
    OTHER_USER,
    said,
    succeeded,
)
from tests.integration.agent.conftest import SERVERS

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])

#: What bubblewrap does with the filter.
BUBBLEWRAP = """#!/usr/bin/python3
import ctypes, os, struct, sys
words = sys.argv[1:]
with open(int(words[words.index("--seccomp") + 1]), "rb") as file:
    code = ctypes.create_string_buffer(text := file.read(), len(text))
libc = ctypes.CDLL(None)
filter = struct.pack("@HP", len(text) // 8, ctypes.addressof(code))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter, 0, 0):
    sys.exit("no filter")
program = words[words.index("--") + 1 :]
os.execv(program[0], program)
"""


def test_it_cannot_change_a_file_of_its_user(binary, confinement, attacks, file):
    ways = ("write", "truncate", "mode", "times", "attributes")
    before = file.stat()
    assert succeeded(binary, confinement, attacks, [(each, file) for each in ways]) == []
    assert file.stat() == before
    assert file.read_bytes() == b"open sesame"


def test_it_cannot_hold_up_those_that_open_or_lock_a_file_of_its_user(binary, confinement, attacks, file):
    """Such as the live server's log, its `nodes.conf`, and the agent's include file."""
    pairs = [("lease", file), ("lock", file), ("notify", file.parent)]
    assert succeeded(binary, confinement, attacks, pairs) == []


def test_it_truncates_no_file_with_an_older_landlock(binary, attacks, file, monkeypatch):
    """Version 2, which Debian 12 has, does not restrict it."""
    *words, code = keeper_words()
    code = code.replace("; keeper.run", "; keeper.barrier.CHANGES[3] = 0; keeper.run")
    monkeypatch.setattr("rollout.agent.scratch.server.keeper_words", lambda: [*words, code])
    assert succeeded(binary, replace(BARRED, user=OTHER_USER), attacks, [("truncate", file)]) == []
    assert file.read_bytes() == b"open sesame"


def test_bubblewrap_gets_the_filter(binary, attacks, file):
    program = file.parent / "bwrap"
    program.write_text(BUBBLEWRAP)
    program.chmod(0o755)
    made = Confinement(user=OTHER_USER, bubblewrap=str(program), barred=CALLS)
    assert succeeded(binary, made, attacks, [("lease", file), ("lock", file)]) == []


def test_it_writes_no_file_elsewhere(binary, confinement, attacks):
    """The temporary directories are empty ones of its own, or closed."""
    paths = [Path(folder) / f"modfleet-attack-{os.getpid()}" for folder in ("/var/tmp", "/dev/shm")]
    found = succeeded(binary, confinement, attacks, [("write", each) for each in paths])
    assert found == (["write", "write"] if confinement.is_isolated else [])
    assert not [each for each in paths if each.exists()]


def test_it_cannot_read_the_secrets_of_its_user(binary, confinement, attacks, other, file):
    hiding = replace(confinement, hidden=(file,))
    paths = (file, f"/proc/{other.pid}/environ")
    assert succeeded(binary, hiding, attacks, [("read", each) for each in paths]) == []


def test_it_cannot_read_the_secrets_of_the_agent(site, built, isolation, monkeypatch):
    """The journal, and the environment of the agent that runs here."""
    monkeypatch.setenv("MODFLEET_SECRET", "open sesame")
    secret = site.root / "journal/secret"
    secret.write_text("open sesame")
    for each in (secret, Path(f"/proc/{os.getpid()}/environ")):
        report = site.install(built("attacks"), command_line_args=f"read {each}")
        words = "".join((report.message, *report.server_log))
        assert "read: failed" in words
        assert "has read" not in words


def test_it_cannot_have_the_agent_read_another_file(binary, confinement, attacks, file):
    """The agent reads the log; the scratch server's user could replace it by a link."""
    file.write_text("Running mode=\nopen sesame\n")
    words = said(binary, confinement, attacks, "log", file)
    assert "log: failed" in words
    assert "sesame" not in words


def test_it_gets_no_rights(binary, confinement, attacks):
    program = Path(shutil.copy("/usr/bin/id", attacks.parent))
    program.chmod(0o4755)
    words = said(binary, confinement.showing([program]), attacks, "root", program)
    assert "root: failed" in words
    assert "not executed" not in words


@pytest.mark.parametrize("made", [NAMESPACES, BARRED], ids=["namespaces", "barrier"])
def test_as_root_it_has_no_rights_either(binary, attacks, file, made):
    """The server's process is not visible to an agent that is root. Root owns the devices, and files in /proc."""
    paths = (file, "/proc/self/comm", "/dev/ptmx")
    assert succeeded(binary, made, attacks, [("write", each) for each in paths]) == []


def test_nothing_is_left_behind(binary, confinement, attacks, temporary):
    """Links and closed directories: `temporary` finds what is left."""
    outside = temporary / "outside"
    outside.mkdir()
    (outside / "file").touch()
    os.chown(outside, *OTHER_USER[:2])
    assert "leave: failed" not in said(binary, confinement, attacks, "leave", outside)
    assert [each.name for each in outside.iterdir()] == ["file"]
    shutil.rmtree(outside)
