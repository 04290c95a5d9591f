"""Is the file on disk the one that the server has loaded? Here the agent may not read what the process has mapped."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from rollout.agent.inspection.loaded_file import read_loaded_file
from rollout.agent.inspection.process import earliest_start
from tests.waiting import wait_for

PATH = "/opt/current/greet.so"
MOUNTS = "1 0 8:1 / / rw - ext4 /dev/sda rw\n"


class Host:
    """A host in a folder. /opt/current is a link to /opt/v1. `started`: its server has started after all files were made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for each in ("opt/v1", "opt/v2", "proc/self", "proc/7", "srv"):
            (root / each).mkdir(parents=True)
        for each in ("v1", "v2"):
            (root / f"opt/{each}/greet.so").write_text(each)
        (root / "opt/current").symlink_to("v1")
        for each in ("self", "7"):
            self.mount(each, MOUNTS)
        self.started = time.time() + 0.02
        wait_for(lambda: time.time() > self.started + 0.02)

    def mount(self, pid: str, text: str) -> None:
        (self.root / f"proc/{pid}/mountinfo").write_text(text)

    def read(self, path=PATH, **changes):
        given: dict[str, Any] = {"pid": 7, "view": self.root, "started": self.started, "root": self.root} | changes
        return read_loaded_file(path, **given)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_it_works(host):
    assert host.read().sha256 == hashlib.sha256(b"v1").hexdigest()


def test_what_lies_beside_it_may_change(host):
    for each in ("opt/new", "srv/new"):
        (host.root / each).write_text("new")
    assert host.read().sha256 == hashlib.sha256(b"v1").hexdigest()


def rewrite(root):
    """With the former size and mtime."""
    file = root / "opt/v1/greet.so"
    found = file.stat()
    file.write_text("v3")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def replace(root):
    (root / "opt/v2/greet.so").replace(root / "opt/v1/greet.so")


def swap_directories(root):
    (root / "opt/v1").rename(root / "opt/v0")
    (root / "opt/v2").rename(root / "opt/v1")


def swap_above(root):
    (root / "opt").rename(root / "opt.old")
    (root / "srv").rename(root / "opt")
    (root / "opt.old/v1").rename(root / "opt/v1")
    (root / "opt/current").symlink_to("v1")


def change_link(root):
    (root / "opt/new").symlink_to("v2")
    (root / "opt/new").replace(root / "opt/current")


@pytest.mark.parametrize("change", [rewrite, replace, swap_directories, swap_above, change_link])
def test_it_has_changed_since_the_start(host, change):
    known = host.read()
    change(host.root)
    found = host.read(known=known)
    assert (found.sha256, "has changed since the server's start" in found.problem) == ("", True)


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        (MOUNTS + "2 1 8:2 / /opt rw - ext4 /dev/sdb rw\n", "The server may see another file at /opt"),
        ("1 0 8:2 / / rw - ext4 /dev/sdb rw\n", "The server may see another file at /opt"),
        ("", "The server may see another file at /opt"),
    ],
)
def test_the_server_has_other_mounts(host, mounts, words):
    host.mount("7", mounts)
    assert words in host.read().problem


@pytest.mark.parametrize("kind", ["nfs4", "btrfs", "fuse.sshfs"])
def test_a_file_system_without_reliable_times(host, kind):
    for each in ("self", "7"):
        host.mount(each, MOUNTS.replace("ext4", kind))
    assert f"({kind}) does not tell" in host.read().problem


def test_an_unknown_start(host):
    assert "start is not known" in host.read(started=None).problem


def test_another_view(host):
    """Then the agent could read the process's root, but not its maps."""
    other = host.root / "proc/7/root"
    other.symlink_to(host.root)
    assert host.read(view=other).sha256 == ""


@pytest.mark.parametrize(
    "path", ["greet.so", "", "/opt/current/\0", "/opt/../../opt/nothing", "/opt/v1", "/opt/loop/x"]
)
def test_no_path_of_a_file(host, path):
    (host.root / "opt/loop").symlink_to("loop")
    found = host.read(path)
    assert (found.sha256, found.problem != "") == ("", True)


def test_what_never_ends(host):
    os.mkfifo(host.root / "opt/fifo")
    with (host.root / "opt/huge").open("wb") as file:
        file.truncate(1 << 40)
    assert "not a regular file" in host.read("/opt/fifo").problem
    later = time.time() + 10
    assert "larger than" in host.read("/opt/huge", started=later).problem


# --- The start of the server


def info(seconds, at=None):
    return {"server_time_usec": str(int((at or time.time()) * 1_000_000)), "uptime_in_seconds": str(seconds)}


def process(root, *, seconds):
    """A process that has started so many seconds ago, 10000 s after the host."""
    (root / "proc/7/stat").write_text(f"7 (redis) S {'0 ' * 18}{10_000 * os.sysconf('SC_CLK_TCK')} 0\n")
    (root / "proc/uptime").write_text(f"{10_000 + seconds} 0\n")


@pytest.mark.parametrize(
    ("by_kernel", "by_server"),
    [(100, 100), (100, 3_700), (100, 40)],
    ids=["same", "clock was set forward", "clock was set back, or the server lies"],
)
def test_the_earlier_start_counts(host, by_kernel, by_server):
    process(host.root, seconds=by_kernel)
    found = earliest_start(7, info(by_server), host.root)
    assert found == pytest.approx(time.time() - max(by_kernel, by_server) - 3, abs=1)


@pytest.mark.parametrize("given", [{}, info("x"), info("nan"), info("1") | {"server_time_usec": "9" * 400}])
def test_a_start_that_is_not_known(host, given):
    process(host.root, seconds=1)
    assert earliest_start(7, given, host.root) is None
    assert earliest_start(8, info(1), host.root) is None
