"""What protects the host from a scratch server without namespaces: Landlock for its files, seccomp for its system calls.

Every user may use both. They hold for the server, for all that it starts, and for ever: landlock(7), seccomp(2).
"""

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from rollout.agent.scratch.kernel import PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, call, prctl, system_call

#: Numbers of system calls, which are the same for every machine.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
GET_VERSION, PATH_BENEATH = 1, 1
#: Of landlock(7). What changes files, by the version of Landlock that knows it: not opened for writing, nor created or deleted
#: (1), not moved (2), not truncated (3).
READ_FILE, WRITE_FILE = 1 << 2, 1 << 1
CHANGES = {1: WRITE_FILE | sum(1 << bit for bit in range(4, 13)), 2: 1 << 13, 3: 1 << 14}
#: Neither abstract sockets of other processes nor signals to them, since version 6.
SCOPES = 3

SECCOMP_MODE_FILTER = 2
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000  # refused as EPERM
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
#: By the machine: its number for seccomp, and the place of its numbers in `CALLS`.
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
#: Numbers of system calls on x86-64 and on ARM64, -1 for none. A socket is reached, a process is changed or read, the owner or
#: mode of a file is changed (Landlock does not forbid it), or another way to make system calls is opened.
CALLS = {
    "connect": (42, 203),
    "io_uring_setup": (425, 425),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, -1),
    "lchown": (94, -1),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, -1),
    "utimes": (235, -1),
    "futimesat": (261, -1),
    "utimensat": (280, 88),
    "shmget": (29, 194),
    "shmctl": (31, 195),
    "semctl": (66, 191),
    "msgctl": (71, 187),
    "keyctl": (250, 219),
}
#: Calls that are allowed with some values of one argument.
KILLS = {"kill": (62, 129), "tgkill": (234, 131)}
PRLIMIT, SOCKET = (302, 261), (41, 198)
#: Calls that are refused with some values: those that name a process to get the signals of a file.
FCNTL, IOCTL = (72, 25), (16, 29)
AF_UNIX, F_SETOWN, F_SETSIG, F_SETOWN_EX, FIOSETOWN, SIOCSPGRP = 1, 8, 10, 15, 0x8901, 0x8902


def stand_behind(barrier: dict[str, Any]) -> None:
    """Let this process, and all that it starts, reach no more than `barrier` says.

    `own`: the directory that it may write. `hidden`, `shown`: what it cannot read, and what it can read nevertheless. `files`,
    `calls`: if the kernel has Landlock, and filters of system calls. Raises: `OSError`.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if barrier["files"]:
        _restrict_files(barrier)
    if barrier["calls"]:
        _restrict_calls()


def _restrict_files(barrier: dict[str, Any]) -> None:
    version = system_call(CREATE_RULESET, None, 0, GET_VERSION)
    changes = sum(rights for since, rights in CHANGES.items() if version >= since)
    scopes = SCOPES if version >= 6 else 0
    attributes = struct.pack("=QQQ", READ_FILE | changes, 0, scopes)[: 24 if scopes else 8]
    rules = system_call(CREATE_RULESET, attributes, len(attributes), 0)
    for path in (*_reachable(set(barrier["hidden"])), *barrier["shown"]):
        _allow(rules, path, READ_FILE)
    _allow(rules, os.devnull, READ_FILE | WRITE_FILE)
    _allow(rules, barrier["own"], READ_FILE | changes)
    system_call(RESTRICT_SELF, rules, 0)
    os.close(rules)


def _reachable(hidden: set[str], path: str = "/") -> Iterator[str]:
    """Yield the largest trees that have no hidden path in them."""
    if path in hidden or os.path.islink(path):  # noqa: PTH114 - pathlib takes 5 ms to import
        return
    prefix = path.rstrip("/") + "/"
    if not any(each.startswith(prefix) for each in hidden):
        yield path
        return
    with suppress(OSError):  # this user cannot look into it
        for name in os.listdir(path):  # noqa: PTH208 - likewise
            yield from _reachable(hidden, prefix + name)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # it does not exist, or this user does not reach it
        return
    if not os.path.isdir(path):  # noqa: PTH112 - as in `_reachable`
        rights &= READ_FILE | WRITE_FILE | CHANGES[3]
    system_call(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    os.close(place)


def _restrict_calls() -> None:
    program = b"".join(_filter(os.uname().machine, os.getpid()))
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the pointer is aligned.
    words = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, words, 0, 0)


def _filter(machine: str, pid: int) -> Iterator[bytes]:
    """Yield the instructions of the filter. `pid`: the process that may signal itself. Raises: `OSError`."""
    if machine not in MACHINES:
        raise OSError(0, f"unknown machine {machine}")
    number, column = MACHINES[machine]
    yield _step(LOAD, 4)
    yield _step(EQUAL, number, 1, 0)
    yield _step(RETURN, KILL)
    yield _step(LOAD, 0)
    yield _step(AT_LEAST, 0x40000000, 0, 1)  # x32 has other numbers
    yield _step(RETURN, REFUSE)
    for refused in CALLS.values():
        if refused[column] >= 0:
            yield _step(EQUAL, refused[column], 0, 1)
            yield _step(RETURN, REFUSE)
    for kill in KILLS.values():
        yield from _by_argument(kill[column], 0, (pid,), REFUSE)
    yield from _by_argument(PRLIMIT[column], 0, (0, pid), REFUSE)
    yield from _by_argument(SOCKET[column], 0, (AF_UNIX,), REFUSE)
    yield from _by_argument(FCNTL[column], 1, (F_SETOWN, F_SETSIG, F_SETOWN_EX), ALLOW)
    yield from _by_argument(IOCTL[column], 1, (FIOSETOWN, SIOCSPGRP), ALLOW)
    yield _step(RETURN, ALLOW)


def _by_argument(number: int, argument: int, values: Iterable[int], otherwise: int) -> Iterator[bytes]:
    """Return `otherwise` for the system call, and the opposite if the lower half of the argument is one of `values`."""
    listed = [*values]
    yield _step(EQUAL, number, 0, 2 + len(listed) + 1)
    yield _step(LOAD, 16 + 8 * argument)
    for place, each in enumerate(listed):
        yield _step(EQUAL, each, len(listed) - place, 0)
    yield _step(RETURN, otherwise)
    yield _step(RETURN, ALLOW if otherwise == REFUSE else REFUSE)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
