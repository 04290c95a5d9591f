"""The modules on a node's disk: `<root>/<module_name>/<version>/`, each there whole or not at all.

Names that start with a dot are ours: `*.tmp` is work in progress, `.<version>.former` is what an unfinished
operation replaced, `.<version>.replaced` says that a running server still has the replaced files in memory.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from durable import sync_directory, temporary_name, write_file


class ModuleStore:
    """The folder `root`, which the server sees as `server_root`."""

    def __init__(self, root: Path, server_root: Path) -> None:
        self.root = root
        self._server_root = PurePosixPath(server_root)
        #: Held while a version appears or disappears, and while the inventory is taken.
        self.lock = threading.RLock()
        with suppress(OSError):  # each command says so; the node heartbeats all the same
            root.mkdir(parents=True, exist_ok=True)

    def path(self, module_name: str, version: int) -> Path:
        return self.root / module_name / str(version)

    def server_path(self, module_name: str, version: int) -> PurePosixPath:
        """The folder of that version, as the server names it."""
        return self._server_root / module_name / str(version)

    def is_ours(self, path: str) -> bool:
        """Whether a path of the server lies in this folder."""
        return ".." not in PurePosixPath(path).parts and PurePosixPath(path).is_relative_to(self._server_root)

    def versions(self) -> Iterator[tuple[str, int, Path]]:
        """Module name, version and folder of all that is installed, in order."""
        for module in sorted(each for each in self.root.iterdir() if each.is_dir()):
            for folder in sorted(each for each in module.iterdir() if each.name.isdecimal() and each.is_dir()):
                yield module.name, int(folder.name), folder

    def scratch(self, module_name: str, version: int) -> Path:
        """A new name beside the version's folder, on the same file system; swept when it is left behind."""
        target = self.path(module_name, version)
        if not target.parent.is_dir():
            target.parent.mkdir()
            sync_directory(self.root)
        return temporary_name(target)

    def set_aside(self, module_name: str, version: int) -> bool:
        """Whether the version was there: its files are then also in the folder `former` until `settle`."""
        target, former = self.path(module_name, version), self._former(module_name, version)
        if target.exists() and not former.exists():
            copy = temporary_name(target)
            shutil.copytree(target, copy, copy_function=os.link)
            copy.rename(former)
            sync_directory(target.parent)
        return former.exists()

    def place(self, fresh: Path, module_name: str, version: int) -> None:
        """`fresh` becomes the version's folder."""
        self._exchange(self.path(module_name, version), fresh)

    def put_back(self, module_name: str, version: int) -> bool:
        """Whether something had been set aside, which is now in its place again, and still set aside until `settle`."""
        target, former = self.path(module_name, version), self._former(module_name, version)
        if not former.exists():
            return False
        copy = temporary_name(target)
        shutil.copytree(former, copy, copy_function=os.link)
        self._exchange(target, copy)
        self._replaced(module_name, version).unlink(missing_ok=True)
        return True

    def former(self, module_name: str, version: int) -> PurePosixPath | None:
        """Where the server finds what was set aside and is neither settled nor put back."""
        former = self._former(module_name, version)
        return self._server_root / module_name / former.name if former.exists() else None

    def settle(self, module_name: str, version: int) -> None:
        """What `place` set aside is no longer needed."""
        former = self._former(module_name, version)
        if former.exists():
            shutil.rmtree(former)

    def drop(self, module_name: str, version: int) -> None:
        """The version is gone, and so is the module's folder when it was the last one."""
        target = self.path(module_name, version)
        with self.lock:
            if target.exists():
                target.rename(temporary_name(target))
                sync_directory(target.parent)
        self.settle(module_name, version)
        self._replaced(module_name, version).unlink(missing_ok=True)
        self.sweep(module_name)

    def sweep(self, module_name: str) -> None:
        """No temporary files of that module, and no empty folder. What was set aside stays."""
        module = self.root / module_name
        if not module.is_dir():
            return
        for left in module.glob(".*.tmp"):
            _remove(left)
        if not any(module.iterdir()):
            module.rmdir()
            sync_directory(self.root)

    def recover(self, module_name: str) -> list[int]:
        """The module's folder after a crash: swept, and nothing missing that had been set aside.

        Answers the versions that something is set aside of.
        """
        versions = [int(each.name.split(".")[1]) for each in (self.root / module_name).glob(".*.former")]
        for version in versions:
            if not self.path(module_name, version).exists():
                self.put_back(module_name, version)
        self.sweep(module_name)
        return versions

    def mark_replaced(self, module_name: str, version: int, run_id: str) -> None:
        """The server process `run_id` keeps the former files of that version in memory, though its path is the same."""
        write_file(self._replaced(module_name, version), run_id.encode(), mode=0o600)

    def replaced_under(self, module_name: str, version: int) -> str:
        """`run_id` given to `mark_replaced`, empty when what is on disk is what a server would have loaded."""
        try:
            return self._replaced(module_name, version).read_text()
        except FileNotFoundError:
            return ""

    def clear_replaced(self, module_name: str, version: int) -> None:
        self._replaced(module_name, version).unlink(missing_ok=True)

    def _exchange(self, target: Path, fresh: Path) -> None:
        """`target` is what `fresh` was."""
        replaced = temporary_name(target)
        with self.lock:
            if target.exists():
                target.rename(replaced)
            fresh.rename(target)
            sync_directory(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)  # what stays is swept

    def _former(self, module_name: str, version: int) -> Path:
        return self.root / module_name / f".{version}.former"

    def _replaced(self, module_name: str, version: int) -> Path:
        return self.root / module_name / f".{version}.replaced"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
