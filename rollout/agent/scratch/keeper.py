"""Starts the programs of one scratch server, confines them, and ends them.

Run as a program. The first line of standard input has the limits, each further line has a program to start, as JSON. The
first line of standard output is the directory that it has created, or a message after a space. A start ends the program
before it. If a program ends by itself, its exit code is printed, negative for a signal. At the end of the input, also if
the agent was killed, every process is killed and the directory is deleted. This file imports little, so that it starts at
once.
"""

import fcntl
import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from rollout.agent.scratch import barrier, namespaces
from rollout.agent.scratch.kernel import (
    PR_CAPBSET_DROP,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_MDWE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    prctl,
    write,
)
from rollout.agent.scratch.namespaces import NOT_STARTED

#: What a scratch server may write in its directory, bytes and files. The disk keeps at least as many bytes.
MOST_WRITTEN, MOST_FILES = 256_000_000, 10_000
#: So many bytes are written by every server.
LITTLE_WRITTEN = 16_000_000
#: More bytes than the limit of its memory are for the program and its libraries.
LITTLE_MEMORY = 64_000_000
#: Processes, and threads: of the second, as many for each CPU again.
MOST_PROCESSES, MOST_THREADS, MOST_THREADS_PER_CPU = 32, 64, 2
#: The live server and the agent come first, setpriority(2).
NICENESS = 10
#: Seconds between two attempts to kill what is left.
PAUSE_SECONDS = 0.001
#: Seconds between two looks at what it has written and at its memory.
LOOK_SECONDS = 0.1
#: Capabilities of any kernel, capabilities(7).
CAPABILITIES = 64


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # processes that leave the session of their server become children of this one
    buffer = b""
    while not buffer.endswith(b"\n"):
        if not (read := os.read(0, 65536)):
            return
        buffer += read
    limits = json.loads(buffer)
    try:
        # The server writes only into its own directory in this one. The agent's files next to it, such as the log, cannot be
        # replaced by links to other files.
        os.mkdir(limits["directory"], 0o711 if limits["user"] else 0o700)  # noqa: PTH102 - pathlib takes 5 ms to import
        os.chmod(limits["directory"], 0o711 if limits["user"] else 0o700)  # noqa: PTH101 - likewise; whatever the umask
        # Held until this process ends: then the directory was left behind.
        fcntl.flock(os.open(limits["directory"], os.O_RDONLY), fcntl.LOCK_EX)
        os.mkdir(limits["own"], 0o700)  # noqa: PTH102 - likewise
        if limits["user"]:
            os.chown(limits["own"], *limits["user"][:2])
    except OSError as error:
        _say(f" {error.strerror}")
        return
    try:
        _say(limits["directory"])
        _serve(limits)
    finally:
        _kill_all()
        delete(limits["directory"])


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
    current, rest, output = 0, b"", ""
    while True:
        for each in starts:
            _kill_all()
            current, output = _start(each, limits), each["output"]
        left = end - time.monotonic()
        ready = select.select([0, reads], [], [], max(0.0, min(left, LOOK_SECONDS)))[0]
        if left <= 0:
            return
        if current and (words := _excess(limits)):
            _kill_all()
            with suppress(OSError):
                write(output, f"\n# The scratch server was ended: {words}.\n", "a")
            _say(f"{-signal.SIGKILL}")
            current = 0
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
    """Start the program in a session of its own. Return the pid of a process that ends as the program ends."""
    parent = os.getpid()
    if pid := os.fork():
        return pid
    try:
        os.setsid()
        os.umask(0o077)
        output = os.open(start["output"], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        # If memory is short, this process ends before the agent and the live server.
        with suppress(OSError):
            write("/proc/self/oom_score_adj", "1000")
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(number, target)
        os.closerange(3, 1024)
        _die_with(parent)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        threads = _most_threads(limits["user"])
        if limits["view"]:
            namespaces.enter(limits["view"], limits["directory"], limits["own"])
        if limits["user"]:
            uid, gid, groups = limits["user"]
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
        if not limits["view"]:
            _die_with(parent)  # again: a change of the user clears it
        for name, value in limits["resources"].items():
            _limit(getattr(resource, name), value)
        _limit(resource.RLIMIT_NPROC, threads)
        os.nice(NICENESS)
        _give_up_rights(is_last=not limits["helper"], write_execute=limits["write_execute"])
        os.chdir(limits["own"])
        if limits["barrier"] and limits["helper"]:
            barrier.hand_over()
        elif limits["barrier"]:
            barrier.stand_behind(limits["barrier"])
        os.execve(start["words"][0], start["words"], dict(os.environ))  # noqa: S606 - that is what it is for
    except OSError as error:
        os.write(2, f"{error.filename or start['words'][0]}: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def _die_with(parent: int) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _give_up_rights(*, is_last: bool, write_execute: bool) -> None:
    """A program with set-user-ID, or a new user namespace, gives no rights back. bubblewrap may need them."""
    if is_last:
        for each in range(CAPABILITIES):
            prctl(PR_CAPBSET_DROP, each)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    if not write_execute:
        prctl(PR_SET_MDWE, 1)


def _excess(limits: dict[str, Any]) -> str:
    """Return what the server has too much of, empty if nothing."""
    if _has_filled(limits["own"]):
        return "it has written too much, or the disk is almost full"
    processes = [*_descendants()]
    if len(processes) > MOST_PROCESSES:
        return "it has started too many processes"
    most = limits["megabytes"] * 1_000_000 + LITTLE_MEMORY
    # RLIMIT_DATA counts neither what processes share nor what they take together.
    if _sum(_resident, processes) > most and _sum(_own, processes) > most:
        return "it has taken too much memory"
    return ""


def _has_filled(directory: str) -> bool:
    """Return True if the server has written too much, or the disk is almost full."""
    written, files, directories = 0, 0, [directory]
    while directories and files < MOST_FILES:
        try:
            with os.scandir(directories.pop()) as entries:
                for entry in entries:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(entry.path)
                    else:
                        written += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:  # deleted in between
            continue
        except OSError:  # what it hides, also behind a path that is too long, counts as too much
            return True
    found = os.statvfs(directory)
    is_short = written > LITTLE_WRITTEN and found.f_bavail * found.f_frsize < MOST_WRITTEN
    return written > MOST_WRITTEN or files >= MOST_FILES or is_short


def _sum(of: Callable[[int], int], processes: Sequence[int]) -> int:
    taken = 0
    for each in processes:
        with suppress(FileNotFoundError, ProcessLookupError, IndexError):  # it has ended
            taken += of(each)
    return taken


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - as in `kernel`
        return int(file.read().split()[1]) * resource.getpagesize()


def _own(pid: int) -> int:
    """Return the bytes of a process. Of what it shares with others, only its part: it takes longer."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123 - likewise
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
    except PermissionError:  # it hides that from other processes of its user
        return _resident(pid)


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
    """Kill all descendants. All at once, and again: none of them starts others then."""
    while found := [*_descendants()]:
        for each in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(PAUSE_SECONDS)


def _descendants() -> Iterator[int]:
    waiting = [os.getpid()]
    while waiting:
        with suppress(OSError):  # it has ended
            children = _children(waiting.pop())
            waiting += children
            yield from children


def _children(pid: int) -> list[int]:
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - likewise
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123 - likewise
            found += [int(each) for each in file.read().split()]
    return found


def _most_threads(user: Sequence[int]) -> int:
    """Return RLIMIT_NPROC, which counts all threads of the user on the host."""
    uid = user[0] if user else os.getuid()
    count = MOST_THREADS + MOST_THREADS_PER_CPU * (os.cpu_count() or 1)
    for each in os.listdir("/proc"):  # noqa: PTH208 - likewise
        with suppress(OSError):
            if each.isdigit() and os.stat(f"/proc/{each}").st_uid == uid:  # noqa: PTH116 - likewise
                count += os.stat(f"/proc/{each}/task").st_nlink - 2  # noqa: PTH116 - likewise
    return count


def delete(directory: str) -> None:
    """Delete the directory, and follow no link. Directories move up first: a path that is too long has no name."""
    found, names = [directory], f"{directory}/{os.urandom(8).hex()}"
    with suppress(OSError):
        os.chmod(directory, 0o700)  # noqa: PTH101 - as in `main`; the server may have changed it
    for each in found:
        with suppress(OSError), os.scandir(each) as entries:
            for entry in [*entries]:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        if entry.stat(follow_symlinks=False).st_mode & 0o700 != 0o700:
                            os.chmod(entry.path, 0o700)  # noqa: PTH101 - likewise
                        os.rename(entry.path, name := f"{names}{len(found)}")  # noqa: PTH104 - likewise
                        found.append(name)
                    else:
                        os.unlink(entry.path)  # noqa: PTH108 - likewise
    for each in reversed(found):
        with suppress(OSError):
            os.rmdir(each)  # noqa: PTH106 - likewise


def run(arguments: Sequence[str]) -> None:
    """Run as a program. With an argument, `_start`'s part of the limits: end with 0 if such a program can be started here."""
    if not arguments:
        main()
        return
    limits = json.loads(arguments[0])
    try:
        if limits["view"]:
            namespaces.enter(limits["view"], "/var", "/var")
        if limits["barrier"]:
            barrier.stand_behind(limits["barrier"])
    except OSError:
        os._exit(1)
    os._exit(0)
