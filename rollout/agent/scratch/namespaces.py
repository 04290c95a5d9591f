"""Gives namespaces of its own to the process that becomes a scratch server."""

import fcntl
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

from rollout.agent.scratch.kernel import PR_SET_PDEATHSIG, call, prctl, system_call, write

#: unshare(2).
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    *(0x00020000, 0x08000000, 0x10000000, 0x20000000),
    0x40000000,
)
#: mount(2).
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
#: Numbers of system calls, which are the same for every machine.
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
AT_FDCWD, AT_RECURSIVE, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = -100, 0x8000, 1, 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
#: The devices that a server has. A read-only mount forbids to write neither a disk nor the terminal of a person.
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
#: ioctl(2) for a network interface.
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
#: Of each temporary file system that hides a directory.
TMPFS = b"size=64m,nr_inodes=10000,mode=1777"
#: Exit code if the program could not be started. 127 is that of the dynamic linker, which says something about the program.
NOT_STARTED = 125


def enter(view: dict[str, Any], directory: str, own: str) -> None:
    """Return in a process that sees only itself, no network, and of the files what `view` says.

    This process waits for it, and ends as it ends.
    """
    sockets = _sockets()
    uid, gid = os.geteuid(), os.getegid()
    spaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    call("unshare", spaces | (CLONE_NEWUSER if view["new_user"] else 0))
    if view["new_user"]:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{uid} {uid} 1")
        write("/proc/self/gid_map", f"{gid} {gid} 1")
    reads, writes = os.pipe()
    if init := os.fork():
        os.close(writes)
        _end_like(reads, init)
    os.close(reads)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
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
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    paths = {directory: False, own: False} | view["shown"] | dict.fromkeys(DEVICES, False)
    trees = {each: _tree(each) for each in paths if os.path.exists(each)}  # noqa: PTH110 - pathlib takes 5 ms to import
    _set("/", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    for path, is_executable in view["executable"].items():  # those above others come first
        if os.path.exists(path):  # noqa: PTH110 - pathlib takes 5 ms to import
            call("mount", os.fsencode(path), os.fsencode(path), None, MS_BIND | MS_REC, None)
            _set(path, *((0, MOUNT_ATTR_NOEXEC) if is_executable else (MOUNT_ATTR_NOEXEC, 0)))
    flags = MS_NOSUID | MS_NODEV | (MS_NOEXEC if view["executable"] else 0)
    hidden = [*view["hidden"], *sockets]
    for path in hidden:
        _hide(path, flags)
    for path, tree in trees.items():
        _make_place(path, is_directory=os.path.isdir(f"/proc/self/fd/{tree}"))  # noqa: PTH112 - likewise
        system_call(MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(path), MOVE_MOUNT_F_EMPTY_PATH)
        os.close(tree)
        kept = 0 if path == own else MOUNT_ATTR_RDONLY
        barred = 0 if paths[path] or not view["executable"] else MOUNT_ATTR_NOEXEC
        _set(path, kept | barred | MOUNT_ATTR_NOSUID)
    for path in hidden:
        if any(path.startswith(f"{each}/") for each in paths):  # it has come back with what is shown
            _hide(path, flags)
    # Root can change the kernel's settings there, also without a capability.
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    try:
        call("mount", b"proc", b"/proc", b"proc", flags, None)
    except OSError:  # in some containers
        call("mount", b"tmpfs", b"/proc", b"tmpfs", flags, None)


def _hide(path: str, flags: int) -> None:
    if os.path.isdir(path):  # noqa: PTH112 - pathlib takes 5 ms to import
        call("mount", b"tmpfs", os.fsencode(path), b"tmpfs", flags, TMPFS)
    elif os.path.exists(path):  # noqa: PTH110 - pathlib takes 5 ms to import
        with suppress(FileNotFoundError):  # a socket that is closed meanwhile
            call("mount", os.devnull.encode(), os.fsencode(path), None, MS_BIND, None)


def _make_place(path: str, *, is_directory: bool) -> None:
    if os.path.exists(path):  # noqa: PTH110 - pathlib takes 5 ms to import
        return
    os.makedirs(path if is_directory else os.path.dirname(path), 0o755, exist_ok=True)  # noqa: PTH103, PTH120 - likewise
    if not is_directory:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _sockets() -> list[str]:
    """Return the paths of all Unix sockets of the host: that of the live server is one of them."""
    with open("/proc/net/unix", "rb") as file:  # noqa: PTH123 - likewise
        words = [line.rstrip(b"\n").split(maxsplit=7) for line in file]
    paths = {os.fsdecode(each[7]) for each in words if len(each) == 8 and each[7].startswith(b"/")}
    return sorted(paths)


def _start_loopback() -> None:
    import socket

    request = b"lo".ljust(16, b"\0") + IFF_UP.to_bytes(2, sys.byteorder) + bytes(22)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def _tree(path: str) -> int:
    return system_call(OPEN_TREE, AT_FDCWD, os.fsencode(path), OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC)


def _set(path: str, on: int, off: int = 0) -> None:
    """Set attributes of the mount at `path` and of all below it."""
    attributes = b"".join(each.to_bytes(8, sys.byteorder) for each in (on, off, 0, 0))
    system_call(MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), AT_RECURSIVE, attributes, len(attributes))
