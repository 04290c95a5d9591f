"""System calls that the standard library of Python does not have."""

import ctypes
import os
from typing import Any

#: prctl(2).
PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_MDWE = 65


def call(name: str, *arguments: Any) -> None:
    """Call a function of the C library. Raises: `OSError`."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*(ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments)):
        _fail(name, arguments)


def system_call(number: int, *arguments: Any) -> int:
    """Return what the system call returns. Raises: `OSError`."""
    words = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    answer: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *words)
    if answer < 0:
        _fail(str(number), arguments)
    return answer


def prctl(option: int, value: int) -> None:
    """Set an attribute of the process. An option that this kernel does not have is ignored."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def write(path: str, text: str, mode: str = "w") -> None:
    with open(path, mode) as file:  # noqa: PTH123 - pathlib takes 5 ms to import
        file.write(text)


def _fail(name: str, arguments: tuple[Any, ...]) -> None:
    number = ctypes.get_errno()
    paths = [os.fsdecode(each) for each in arguments if isinstance(each, bytes) and each.startswith(b"/")]
    raise OSError(number, os.strerror(number), f"{name} {paths[-1]}" if paths else name)
