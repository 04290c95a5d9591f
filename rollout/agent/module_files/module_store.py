"""The module store: the modules on a node's disk, `<root>/<module_name>/<version>/`. Each is there whole or not at all.

The store's own names start with a dot. `*.tmp` is incomplete. `.<version>.former` are the files that an unfinished
operation has replaced. `.<version>.replaced` says that a running server still has the replaced files in memory.
"""

import ctypes
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from durable import make_directory, sync_directory, temporary_name, write_file

#: From <fcntl.h> and <linux/fs.h>.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class ModuleStore:
    """The directory `root`, which the server sees as `server_root`."""

    def __init__(self, root: Path, server_root: Path) -> None:
        self.root = root
        self.server_root = PurePosixPath(server_root)
        #: Locked while a version appears or disappears, and while the inventory is read.
        self.lock = threading.RLock()
        with suppress(OSError):  # each command will fail; heartbeats are still sent
            make_directory(root, mode=0o755)  # the server reads it as another user

    def path(self, module_name: str, version: int) -> Path:
        return self.root / module_name / str(version)

    def server_path(self, module_name: str, version: int) -> PurePosixPath:
        """Return the directory of the version, as the server sees it."""
        return self.server_root / module_name / str(version)

    def is_ours(self, path: str) -> bool:
        """Return True if a path of the server is in the store."""
        return ".." not in PurePosixPath(path).parts and PurePosixPath(path).is_relative_to(self.server_root)

    def on_agent(self, path: str) -> Path:
        """Return where the agent finds a path of the server that is in the store."""
        return self.root / PurePosixPath(path).relative_to(self.server_root)

    def versions(self) -> Iterator[tuple[str, int, Path]]:
        """Yield module name, version and directory of each installed version, in order."""
        for module in sorted(each for each in self.root.iterdir() if each.is_dir()):
            for directory in sorted(each for each in module.iterdir() if each.name.isdecimal() and each.is_dir()):
                yield module.name, int(directory.name), directory

    def scratch(self, module_name: str, version: int) -> Path:
        """Return a new name next to the version's directory, on the same file system. `sweep` deletes it if it stays behind."""
        target = self.path(module_name, version)
        if not target.parent.is_dir():
            make_directory(target.parent, mode=0o755)
            sync_directory(self.root)
        return temporary_name(target)

    def set_aside(self, module_name: str, version: int) -> bool:
        """Keep the version's files also in the directory `former`, until `settle`. Return False if there are none."""
        target, former = self.path(module_name, version), self._former(module_name, version)
        if target.exists() and not former.exists():
            copy = temporary_name(target)
            _link_all(target, copy)
            copy.rename(former)
            sync_directory(target.parent)
        return former.exists()

    def place(self, fresh: Path, module_name: str, version: int) -> None:
        """Make `fresh` the version's directory."""
        self._exchange(self.path(module_name, version), fresh)

    def restore(self, module_name: str, version: int) -> bool:
        """Restore the files that were set aside; they stay set aside until `settle`. Return False if there are none."""
        target, former = self.path(module_name, version), self._former(module_name, version)
        if not former.exists():
            return False
        copy = temporary_name(target)
        _link_all(former, copy)
        self._exchange(target, copy)
        self._replaced(module_name, version).unlink(missing_ok=True)
        return True

    def former(self, module_name: str, version: int) -> PurePosixPath | None:
        """Return where the server finds the files that are set aside, or None if there are none."""
        former = self._former(module_name, version)
        return self.server_root / module_name / former.name if former.exists() else None

    def settle(self, module_name: str, version: int) -> None:
        """Delete the files that `set_aside` has kept."""
        former = self._former(module_name, version)
        if former.exists():
            shutil.rmtree(former)

    def drop(self, module_name: str, version: int) -> None:
        """Delete the version, and the module's directory if it was the last version."""
        target = self.path(module_name, version)
        with self.lock:
            if target.exists():
                target.rename(temporary_name(target))
                sync_directory(target.parent)
        self.settle(module_name, version)
        self._replaced(module_name, version).unlink(missing_ok=True)
        self.sweep(module_name)

    def sweep(self, module_name: str) -> None:
        """Delete the module's temporary files, and its directory if it is empty. Files that are set aside stay."""
        module = self.root / module_name
        if not module.is_dir():
            return
        for left in module.glob(".*.tmp"):
            _remove(left)
        if not any(module.iterdir()):
            module.rmdir()
            sync_directory(self.root)

    def recover(self, module_name: str) -> list[int]:
        """Clean up the module after a crash, and restore missing versions that were set aside.

        Returns the versions with files that are set aside.
        """
        versions = [int(each.name.split(".")[1]) for each in (self.root / module_name).glob(".*.former")]
        for version in versions:
            if not self.path(module_name, version).exists():
                self.restore(module_name, version)
        self.sweep(module_name)
        return versions

    def mark_replaced(self, module_name: str, version: int, run_id: str) -> None:
        """Note that the server process `run_id` has the former files of the version in memory, though the path is the same."""
        write_file(self._replaced(module_name, version), run_id.encode(), mode=0o600)

    def replaced_under(self, module_name: str, version: int) -> str:
        """Return the `run_id` of `mark_replaced`, or an empty string if no server has former files in memory."""
        try:
            return self._replaced(module_name, version).read_text()
        except FileNotFoundError:
            return ""

    def clear_replaced(self, module_name: str, version: int) -> None:
        self._replaced(module_name, version).unlink(missing_ok=True)

    def _exchange(self, target: Path, fresh: Path) -> None:
        """Replace `target` by `fresh`. A server that starts at any moment finds one of them, if the kernel can exchange two
        names: a line of its configuration may name the files."""
        replaced = temporary_name(target)
        with self.lock:
            if not target.exists():
                fresh.rename(target)
            elif exchange_names(target, fresh):
                replaced = fresh
            else:
                target.rename(replaced)
                fresh.rename(target)
            sync_directory(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)  # `sweep` deletes the rest

    def _former(self, module_name: str, version: int) -> Path:
        return self.root / module_name / f".{version}.former"

    def _replaced(self, module_name: str, version: int) -> Path:
        return self.root / module_name / f".{version}.replaced"


def exchange_names(one: Path, other: Path) -> bool:
    """Exchange the names of two existing files or directories in one step: renameat2(2). Return False if that is not
    possible here, and then nothing has changed."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28, musl 1.2.6
    if renameat2 is None:
        return False
    status: int = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return status == 0


def _link_all(source: Path, to: Path) -> None:
    """Make the directory `to`, with hard links to all files of `source`, fsynced: a line may name one of them soon.

    Unlike `shutil.copytree`, it raises the first error as it is, so that a full disk is one.
    """
    make_directory(to, mode=0o755)
    for each in source.iterdir():
        if each.is_dir():
            _link_all(each, to / each.name)
        else:
            os.link(each, to / each.name)
    sync_directory(to)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
