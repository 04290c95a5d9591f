"""The filter of system calls, as the kernel would run it, also for the machine that this one is not."""

import errno
import os
import re
import struct
import subprocess
from types import SimpleNamespace

import pytest

from rollout.agent.scratch import calls

#: The kernel's lists. That of ARM64 is the one that all newer machines have.
HEADERS = {"x86_64": "asm/unistd_64.h", "aarch64": "asm-generic/unistd.h"}
DEFINES = [f"-D__ARCH_WANT_{each}" for each in ("RENAMEAT", "NEW_STAT", "SET_GET_RLIMIT")]
#: Newer than the oldest headers with which the tests run.
NEWER = 451
ALL = calls.ALWAYS + calls.FOR_PROCESSES + calls.WITH_NAMESPACES
PID, OTHER = 4711, 4712

F_SETLK, F_SETLEASE, F_NOTIFY, F_SETOWN = 6, 1024, 1026, 8
CLONE_NEWUSER, CLONE_VM, SIGCHLD = 0x10000000, 0x100, 17
FS_IOC_SETFLAGS, TCGETS = 0x40086602, 0x5401


def numbers_of(header):
    """By the name of the call, empty if this machine does not have the header."""
    words = ["gcc", "-E", "-dM", *DEFINES, "-include", header, "-x", "c", os.devnull]
    done = subprocess.run(words, capture_output=True, text=True)
    values: dict[str, str] = dict(re.findall(r"#define (__NR\w+) (\w+)", done.stdout))
    return {name: values.get(value, value) for name, value in values.items()}


def test_the_numbers_are_those_of_the_kernel():
    found = {machine: kernels for machine, header in HEADERS.items() if (kernels := numbers_of(header))}
    assert os.uname().machine in found
    for machine, kernels in found.items():
        for name, pair in calls.numbers(ALL).items():
            number = pair[calls.MACHINES[machine][1]]
            unknown = "" if number is None or number < NEWER else str(number)
            assert kernels.get(f"__NR_{name}", unknown) == ("" if number is None else str(number)), name


def answered(machine, monkeypatch, name, *arguments, namespaces):
    """What the filter returns for a call: 0 if it is allowed, else its error; the words `done` if it is not made."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    monkeypatch.setattr(os, "getpid", lambda: PID)
    architecture, column = calls.MACHINES[machine]
    number = name if isinstance(name, int) else calls.numbers(ALL)[name][column]
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    program = [*struct.iter_unpack("=HBBI", calls.program(namespaces=namespaces))]
    place = value = 0
    while True:
        code, if_true, if_false, word = program[place]
        place += 1
        match code:
            case calls.LOAD:
                (value,) = struct.unpack_from("=I", data, word)
            case calls.AND:
                value &= word
            case calls.EQUAL:
                place += if_true if value == word else if_false
            case calls.AT_LEAST:
                place += if_true if value >= word else if_false
            case calls.RETURN:
                assert word == calls.ALLOW or word & 0xFFFF0000 == calls.ANSWER
                return 0 if word == calls.ALLOW else (word & 0xFFFF or "done")


@pytest.mark.parametrize("machine", HEADERS)
@pytest.mark.parametrize("namespaces", [True, False])
def test_each_call_of_the_lists_has_its_answer(machine, monkeypatch, namespaces):
    def answer(name, *arguments):
        return answered(machine, monkeypatch, name, *arguments, namespaces=namespaces)

    assert (answer("read"), answer("mmap"), answer("exit_group"), answer("getrandom")) == (0, 0, 0, 0)
    assert (
        answer("fcntl", 3, F_SETLEASE) == answer("fcntl", 3, F_NOTIFY) == answer("fcntl", 3, F_SETOWN) == errno.EINVAL
    )
    assert (answer("fcntl", 3, F_SETLK), answer("flock", 3, 2)) == ("done", "done")
    assert (answer("clone", CLONE_VM), answer("clone", CLONE_NEWUSER | SIGCHLD)) == (0, errno.EPERM)
    assert answer("socket", calls.AF_UNIX, 1) == answer("socketpair", calls.AF_UNIX, 1 | 0o4000) == 0
    for kind in (calls.SOCK_DGRAM, calls.SOCK_RAW | 0o2000000):
        assert answer("socket", calls.AF_UNIX, kind) == answer("socketpair", calls.AF_UNIX, kind) == errno.EAFNOSUPPORT
    assert (answer("openat", 0, 0, os.O_RDONLY), answer("openat", 0, 0, os.O_RDONLY | os.O_TRUNC)) == (0, errno.EPERM)
    assert answer("openat", 0, 0, os.O_WRONLY | os.O_TRUNC) == 0
    # `connect`, `add_key` and `ptrace` of both machines; clone3, io_uring_setup, and a call of the future.
    for number in {"x86_64": (42, 248, 101), "aarch64": (203, 217, 117)}[machine]:
        assert answer(number) == errno.EPERM
    assert answer(435) == answer(425) == answer(4000) == errno.ENOSYS
    # What is its own in namespaces.
    assert answer("kill", PID, 9) == answer("kill", 0, 9) == answer("prlimit64", 0) == answer("ioctl", 3, TCGETS) == 0
    own = 0 if namespaces else errno.EPERM
    assert answer("kill", OTHER, 9) == answer("kill", 2**32 - 1) == answer("sched_setaffinity", OTHER) == own
    assert answer("fchmod", 3, 0o777) == answer("shmat", 1) == answer("truncate") == own
    assert answer("ioctl", 3, FS_IOC_SETFLAGS) == (0 if namespaces else errno.ENOTTY)
    assert answer("socket", calls.AF_INET, 1) == (0 if namespaces else errno.EAFNOSUPPORT)


def test_calls_of_another_kind_of_machine_end_the_process(monkeypatch):
    """As those of 32-bit programs: they have other numbers."""
    steps = [*struct.iter_unpack("=HBBI", calls.program(namespaces=True))]
    assert steps[2][3] == calls.KILL
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="riscv64"))
    with pytest.raises(OSError, match="riscv64"):
        calls.program(namespaces=True)
