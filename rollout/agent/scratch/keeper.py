"""Starts the programs of one scratch server, limits them, and ends them.

Run as a program. The first line of standard input has the limits, each further line has a program to start, as JSON. The
first line of standard output is the directory that it has created, or a message after a space. A start ends the program
before it. If a program ends by itself, its exit code is printed, negative for a signal. At the end of the input, also if
the agent was killed, every process is killed and the directory is deleted. This file imports nothing of the project, so
that it starts at once.
"""

import ctypes
import json
import os
import resource
import select
import shutil
import signal
import time
from contextlib import suppress
from typing import Any

#: prctl(2).
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
#: How long killed processes are waited for, seconds.
KILL_SECONDS = 5.0


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # processes that leave the session of their server become children of this one
    buffer = b""
    while not buffer.endswith(b"\n"):
        if not (read := os.read(0, 65536)):
            return
        buffer += read
    limits = json.loads(buffer)
    try:
        os.mkdir(limits["directory"], 0o700)  # noqa: PTH102 - pathlib takes 5 ms to import
        if limits["user"]:
            os.chown(limits["directory"], *limits["user"][:2])
    except OSError as error:
        _say(f" {error.strerror}")
        return
    try:
        _say(limits["directory"])
        _serve(limits)
    finally:
        _kill_all()
        shutil.rmtree(limits["directory"], ignore_errors=True)


def _say(line: str) -> None:
    with suppress(BrokenPipeError):
        os.write(1, f"{line}\n".encode())


def _serve(limits: dict[str, Any]) -> None:
    """Start programs until the input ends, or for `limits["seconds"]`."""
    reads, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    end = time.monotonic() + limits["seconds"]
    starts: list[dict[str, Any]] = []
    current, rest = 0, b""
    while True:
        for each in starts:
            _kill_all()
            current = _start(each, limits)
        ready = select.select([0, reads], [], [], max(0.0, end - time.monotonic()))[0]
        if not ready:
            return
        if reads in ready:
            os.read(reads, 512)
            _tell_ended(current)
        starts = []
        if 0 in ready:
            if not (read := os.read(0, 65536)):
                return
            *lines, rest = (rest + read).split(b"\n")
            starts = [json.loads(line) for line in lines]


def _start(start: dict[str, Any], limits: dict[str, Any]) -> int:
    """Start the program in a session of its own. Return its pid."""
    parent = os.getpid()
    if pid := os.fork():
        return pid
    try:
        os.setsid()
        output = os.open(start["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # If memory is short, this process ends before the agent and the live server.
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - as in `_children`
            file.write("1000")
        nothing = os.open(os.devnull, os.O_RDONLY)
        if limits["user"]:
            uid, gid, groups = limits["user"]
            os.fchown(output, uid, gid)
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # last: a change of the user clears it
        if os.getppid() != parent:
            os._exit(1)
        for number, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(number, target)
        os.closerange(3, 1024)
        for name, value in limits["resources"].items():
            _limit(getattr(resource, name), value)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o077)
        os.chdir(limits["directory"])
        os.execve(start["words"][0], start["words"], dict(os.environ))  # noqa: S606 - that is what it is for
    except OSError as error:
        os.write(2, f"{start['words'][0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    least = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (least, least))


def _tell_ended(current: int) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid == current:
                _say(str(os.waitstatus_to_exitcode(status)))


def _kill_all() -> None:
    """Kill all descendants: the children of a killed process become children of this one."""
    end = time.monotonic() + KILL_SECONDS
    while (children := _children()) and time.monotonic() < end:
        for each in children:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(each, 0)


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123 - likewise
        return [int(each) for each in file.read().split()]


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
