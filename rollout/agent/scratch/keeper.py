"""Starts the programs of one scratch server, confines them, and ends them.

Run as a program. The first line of standard input has the limits, each further line has a program to start, as JSON. The
first line of standard output is the directory that it has created, or a message after a space. A start ends the program
before it. If a program ends by itself, its exit code is printed, negative for a signal. At the end of the input, also if
the agent was killed, every process is killed and the directory is deleted. This file imports nothing of the project, so
that it starts at once.
"""

import ctypes
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from typing import Any

#: prctl(2).
PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_MDWE = 65
#: unshare(2).
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    *(0x00020000, 0x08000000, 0x10000000, 0x20000000),
    0x40000000,
)
#: mount(2).
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
#: Numbers of system calls, which are the same for every machine.
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
AT_FDCWD, AT_RECURSIVE, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = -100, 0x8000, 1, 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOEXEC = 1, 2, 8
#: ioctl(2) for a network interface.
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
#: Of each temporary file system that hides a directory.
TMPFS = b"size=64m,nr_inodes=10000,mode=1777"
#: What a scratch server may write in its directory, bytes and files. The disk keeps at least as many bytes.
MOST_WRITTEN, MOST_FILES = 256_000_000, 10_000
#: So many bytes are written by every server.
LITTLE_WRITTEN = 16_000_000
#: Seconds between two looks at what it has written.
LOOK_SECONDS = 0.1
#: Capabilities of any kernel, capabilities(7).
CAPABILITIES = 64
#: Exit code if the program could not be started. 127 is that of the dynamic linker, which says something about the program.
NOT_STARTED = 125
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
    current, rest, output = 0, b"", ""
    while True:
        for each in starts:
            _kill_all()
            current, output = _start(each, limits), each["output"]
        left = end - time.monotonic()
        ready = select.select([0, reads], [], [], max(0.0, min(left, LOOK_SECONDS)))[0]
        if left <= 0:
            return
        if current and _has_filled(limits["own"]):
            _kill_all()
            with open(output, "a") as file:  # noqa: PTH123 - as in `_children`
                file.write("\n# The scratch server was ended: it has written too much, or the disk is almost full.\n")
            _say(f"{-signal.SIGXFSZ}")
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
            _write("/proc/self/oom_score_adj", "1000")
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(number, target)
        os.closerange(3, 1024)
        _die_with(parent)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        if limits["view"]:
            _in_namespaces(limits["view"], limits["directory"], limits["own"])
        if limits["user"]:
            uid, gid, groups = limits["user"]
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
        if not limits["view"]:
            _die_with(parent)  # again: a change of the user clears it
        for name, value in limits["resources"].items():
            _limit(getattr(resource, name), value)
        _give_up_rights(is_alone=bool(limits["view"]), write_execute=limits["write_execute"])
        os.chdir(limits["own"])
        os.execve(start["words"][0], start["words"], dict(os.environ))  # noqa: S606 - that is what it is for
    except OSError as error:
        os.write(2, f"{error.filename or start['words'][0]}: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def _die_with(parent: int) -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _give_up_rights(*, is_alone: bool, write_execute: bool) -> None:
    """A program with set-user-ID, or a new user namespace, gives no rights back."""
    if is_alone:
        for each in range(CAPABILITIES):
            _prctl(PR_CAPBSET_DROP, each)
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if not write_execute:
        _prctl(PR_SET_MDWE, 1)


def _in_namespaces(view: dict[str, Any], directory: str, own: str) -> None:
    """Return in a process that sees only itself, no network, and of the files what `view` says.

    This process waits for it, and ends as it ends.
    """
    sockets = _sockets()
    uid, gid = os.geteuid(), os.getegid()
    spaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    _call("unshare", spaces | (CLONE_NEWUSER if view["new_user"] else 0))
    if view["new_user"]:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    reads, writes = os.pipe()
    if init := os.fork():
        os.close(writes)
        _end_like(reads, init)
    os.close(reads)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _start_loopback()
    os.umask(0o022)
    _lay_out(view, directory, own, sockets)
    os.umask(0o077)
    if program := os.fork():  # signals that a program sends to itself do not end the first process of a namespace
        while True:
            pid, status = os.wait()
            if pid == program:
                os.write(writes, str(os.waitstatus_to_exitcode(status)).encode())
                os._exit(0)
    os.close(writes)


def _end_like(reads: int, init: int) -> None:
    words = os.read(reads, 16)
    os.waitpid(init, 0)
    code = int(words or NOT_STARTED)
    if code < 0:
        with suppress(OSError):  # KILL and STOP have no handler
            signal.signal(-code, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), -code)
    os._exit(code)


def _lay_out(view: dict[str, Any], directory: str, own: str, sockets: list[str]) -> None:
    """Mount everything read-only, and hide what the server must not see: other processes and their sockets too."""
    _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    paths = {directory: False, own: False} | view["shown"]
    trees = {each: _tree(each) for each in paths if os.path.exists(each)}  # noqa: PTH110 - as in `main`
    _set("/", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID)
    for path, is_executable in view["executable"].items():  # those above others come first
        if os.path.exists(path):  # noqa: PTH110 - as in `main`
            _call("mount", os.fsencode(path), os.fsencode(path), None, MS_BIND | MS_REC, None)
            _set(path, *((0, MOUNT_ATTR_NOEXEC) if is_executable else (MOUNT_ATTR_NOEXEC, 0)))
    flags = MS_NOSUID | MS_NODEV | (MS_NOEXEC if view["executable"] else 0)
    hidden = [*view["hidden"], *sockets]
    for path in hidden:
        _hide(path, flags)
    for path, tree in trees.items():
        _make_place(path, is_directory=os.path.isdir(f"/proc/self/fd/{tree}"))  # noqa: PTH112 - likewise
        _syscall(MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(path), MOVE_MOUNT_F_EMPTY_PATH)
        os.close(tree)
        kept = 0 if path == own else MOUNT_ATTR_RDONLY
        barred = 0 if paths[path] or not view["executable"] else MOUNT_ATTR_NOEXEC
        _set(path, kept | barred | MOUNT_ATTR_NOSUID)
    for path in hidden:
        if any(path.startswith(f"{each}/") for each in paths):  # it has come back with what is shown
            _hide(path, flags)
    try:
        _call("mount", b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
    except OSError:  # in some containers
        _call("mount", b"tmpfs", b"/proc", b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)


def _hide(path: str, flags: int) -> None:
    if os.path.isdir(path):  # noqa: PTH112 - as in `main`
        _call("mount", b"tmpfs", os.fsencode(path), b"tmpfs", flags, TMPFS)
    elif os.path.exists(path):  # noqa: PTH110 - as in `main`
        with suppress(FileNotFoundError):  # a socket that is closed meanwhile
            _call("mount", os.devnull.encode(), os.fsencode(path), None, MS_BIND, None)


def _make_place(path: str, *, is_directory: bool) -> None:
    if os.path.exists(path):  # noqa: PTH110 - as in `main`
        return
    os.makedirs(path if is_directory else os.path.dirname(path), 0o755, exist_ok=True)  # noqa: PTH103, PTH120 - likewise
    if not is_directory:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _sockets() -> list[str]:
    """Return the paths of all Unix sockets of the host: that of the live server is one of them."""
    with open("/proc/net/unix", "rb") as file:  # noqa: PTH123 - as in `_children`
        words = [line.rstrip(b"\n").split(maxsplit=7) for line in file]
    paths = {os.fsdecode(each[7]) for each in words if len(each) == 8 and each[7].startswith(b"/")}
    return sorted(paths)


def _start_loopback() -> None:
    import socket

    request = b"lo".ljust(16, b"\0") + IFF_UP.to_bytes(2, sys.byteorder) + bytes(22)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def _tree(path: str) -> int:
    return _syscall(OPEN_TREE, AT_FDCWD, os.fsencode(path), OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC)


def _set(path: str, on: int, off: int = 0) -> None:
    """Set attributes of the mount at `path` and of all below it."""
    attributes = b"".join(each.to_bytes(8, sys.byteorder) for each in (on, off, 0, 0))
    _syscall(MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), AT_RECURSIVE, attributes, len(attributes))


def _call(name: str, *arguments: Any) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*(ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments)):
        _fail(name, arguments)


def _syscall(number: int, *arguments: Any) -> int:
    words = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    answer: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *words)
    if answer < 0:
        _fail(str(number), arguments)
    return answer


def _fail(name: str, arguments: tuple[Any, ...]) -> None:
    number = ctypes.get_errno()
    paths = [os.fsdecode(each) for each in arguments if isinstance(each, bytes) and each.startswith(b"/")]
    raise OSError(number, os.strerror(number), f"{name} {paths[-1]}" if paths else name)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123 - as in `_children`
        file.write(text)


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
        except PermissionError:  # what it hides counts as too much
            return True
    found = os.statvfs(directory)
    is_short = written > LITTLE_WRITTEN and found.f_bavail * found.f_frsize < MOST_WRITTEN
    return written > MOST_WRITTEN or files >= MOST_FILES or is_short


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


def _try(view: str) -> None:
    """End with 0 if such a view can be given to a program."""
    try:
        _in_namespaces(json.loads(view), "/var", "/var")
    except OSError:
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    _try(sys.argv[1]) if len(sys.argv) > 1 else main()
