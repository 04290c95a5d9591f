"""A small disk of its own for a folder, which is full when it has to be: a tmpfs that shrinks to what it has.

It needs no root, but a mount namespace, and only a process with one thread can enter that: see `enter`. What the process starts
afterwards is in it too, with the same user and the same rights as before.
"""

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

#: unshare(2), mount(2), umount2(2).
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REMOUNT, MS_REC, MS_PRIVATE = 32, 16384, 1 << 18
MNT_DETACH = 2
#: Bytes of a disk that has room: no more than that is used.
ROOM = 1 << 30

_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> None:
    """Move this process to mounts of its own. Raises: `OSError` if it has threads, or if Linux allows no user namespaces."""
    user, group = os.geteuid(), os.getegid()
    _call("unshare", CLONE_NEWNS | (CLONE_NEWUSER if user else 0))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)


@dataclass(frozen=True)
class Disk:
    """The disk of a folder, which is empty before. The end of the block removes what is there."""

    folder: Path

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        _call("mount", b"none", bytes(self.folder), b"tmpfs", 0, f"size={ROOM},mode=755".encode())
        return self

    def __exit__(self, *_: object) -> None:
        _call("umount2", bytes(self.folder), MNT_DETACH)

    def fill(self) -> None:
        """No file can grow, except in its last page. Files can be replaced by smaller ones, renamed and deleted."""
        while True:
            with suppress(OSError):  # a process has just written more than that
                found = os.statvfs(self.folder)
                return self._resize((found.f_blocks - found.f_bfree) * found.f_frsize)

    def free(self) -> None:
        self._resize(ROOM)

    def _resize(self, size: int) -> None:
        # 0 would mean no limit.
        _call("mount", b"none", bytes(self.folder), None, MS_REMOUNT, f"size={max(size, 4096)}".encode())


def _call(name: str, *words: int | bytes | None) -> None:
    if getattr(_libc, name)(*(ctypes.c_ulong(each) if isinstance(each, int) else each for each in words)):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
