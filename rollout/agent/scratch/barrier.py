"""What protects the host from a scratch server: the filter of `calls` and, without namespaces, Landlock for its files.

Every user may use both. They hold for the server, for all that it starts, and for ever: landlock(7), seccomp(2).
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from rollout.agent.scratch import calls
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
#: The open file of bubblewrap's filter.
BUBBLEWRAP_FILTER = 3


def stand_behind(barrier: dict[str, Any]) -> None:
    """Let this process, and all that it starts, reach no more than `barrier` says.

    `own`: the directory that it may write. `hidden`, `shown`: what it cannot read, and what it can read nevertheless. `files`,
    `calls`: if Landlock, and the filter of system calls, are used. `namespaces`: if it has its own. Raises: `OSError`.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if barrier["files"]:
        _restrict_files(barrier)
    if barrier["calls"]:
        _restrict_calls(calls.program(namespaces=barrier["namespaces"]))


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


def _restrict_calls(program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the pointer is aligned.
    words = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, words, 0, 0)


def hand_over() -> None:
    """Let bubblewrap, which this process becomes, set the filter: its own calls are not among those that are allowed."""
    file = os.memfd_create("filter", 0)
    os.pwrite(file, calls.program(namespaces=True), 0)
    os.dup2(file, BUBBLEWRAP_FILTER)
