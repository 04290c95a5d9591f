"""Reads the files of loaded modules that Modfleet did not install, in a thread of its own: no heartbeat waits for a disk."""

import logging
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from rollout.agent.inspection.loaded_file import LoadedFile, read_loaded_file

log = logging.getLogger(__name__)

NOT_READ = LoadedFile(problem="The agent has not read the file yet.")


class ForeignFiles:
    """The newest results, by path, for one server process at a time. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_running = False
        self._run_id = ""
        self._found: Mapping[str, LoadedFile] = {}

    def newest(
        self, run_id: str, paths: Collection[str], pid: int | None, view: Path | None, started: float | None
    ) -> Mapping[str, LoadedFile]:
        """Return what is known about the files that the server process `run_id` has loaded. Never waits; reads them again."""
        with self._lock:
            if run_id != self._run_id:
                self._run_id, self._found = run_id, {}
            if paths and not self._is_running:
                self._is_running = True
                words = (run_id, tuple(paths), pid, view, started)
                threading.Thread(target=self._read, args=words, name="foreign-files", daemon=True).start()
            return {path: self._found.get(path, NOT_READ) for path in paths}

    def _read(
        self, run_id: str, paths: Collection[str], pid: int | None, view: Path | None, started: float | None
    ) -> None:
        try:
            with self._lock:
                known = self._found if run_id == self._run_id else {}
            found = {path: read_loaded_file(path, pid, view, started, known.get(path)) for path in paths}
            with self._lock:
                if run_id == self._run_id:
                    self._found = found
        except Exception:
            log.exception("The files of loaded modules cannot be read")
        finally:
            with self._lock:
                self._is_running = False
