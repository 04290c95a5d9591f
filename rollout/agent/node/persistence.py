"""What the next start of the server loads, and who writes it: one owner for each node (docs/adr/0015).

`include`: our include file, except for modules that the main configuration file loads: CONFIG REWRITE copies them there, for
example during a failover by Sentinel. `rewrite`: the main file, which the server writes. `external`: a person or a tool.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from rollout.agent.failure import Failure
from rollout.agent.inspection.host_files import ROOT, on_host
from rollout.agent.inspection.start_lines import LoadLine, OptionLine, StartLines, StartReader
from rollout.agent.module_files.include import IncludeFile, load_line
from rollout.agent.module_files.main_file import change_lines
from rollout.agent.module_files.module_store import ModuleStore
from rollout.agent.node.beside_sentinel import refuse_beside_sentinel
from rollout.agent.node.config_rewrite import ConfigRewrite, refuse_quotes
from rollout.agent.server.adoptions import Adoptions
from rollout.agent.server.session import LoadedModule, RefusedError, Server
from rollout.agent.settings import AgentSettings
from rollout.messages import Reason

log = logging.getLogger(__name__)

#: Lines that could not be moved are tried again after so many seconds.
MOVE_SECONDS = 60.0


class Persistence:
    """The lines of the node of these settings. Threads may share it.

    Each method that changes a line raises `Failure` (persistence_failed, persistence_conflict) or `OSError`.
    """

    def __init__(
        self,
        settings: AgentSettings,
        store: ModuleStore,
        server: Server,
        adoptions: Adoptions | None = None,
        root: Path = ROOT,
    ) -> None:
        path = settings.include_file or settings.modules_dir / "modfleet.conf"
        self.owner = settings.persistence
        self.reader = StartReader(settings.server_url, root)
        self._path = path
        self._node = settings.node
        self.is_observer = settings.observe
        self._include = IncludeFile(path)
        self.store = store
        self._server = server
        self._adoptions = adoptions or Adoptions(settings.journal_dir)
        self._config_rewrite = ConfigRewrite(server, settings.journal_dir)
        #: When the lines of our include file may be moved, by the monotonic clock.
        self._moves_at = 0.0
        #: Held while a line changes.
        self.lock = threading.RLock()
        #: The lines after the last CONFIG REWRITE by this agent.
        self.written: StartLines | None = None

    @property
    def is_external(self) -> bool:
        """Return True if the agent writes no line, and loads and unloads no module."""
        return self.owner == "external"

    def ensure(self) -> None:
        """Prepare the include file at the start of the agent, and resolve what a crash has left."""
        if self.is_observer:
            return
        with self.lock:
            if self.owner == "include":
                self._include.ensure()
            self.resolve(self.read(), rewrites=True)

    def read(self) -> StartLines:
        """Return the lines of all files and of the command line. While the server is down, its files are still read.

        A line that loads an adopted module from its foreign path has the path in the module store: CONFIG REWRITE writes such
        a line until the server is restarted.
        """
        return self._with_adopted(self.read_as_written())

    def _with_adopted(self, start: StartLines) -> StartLines:
        lines = tuple(replace(each, path=self._adoptions.in_store(each.path)) for each in start.lines)
        return replace(start, lines=lines)

    def read_as_written(self) -> StartLines:
        """Return the same, with all paths as they are written."""
        if self.reader.main is not None:  # heartbeats keep it up to date
            return self.reader.read({})
        try:
            with self._server.session() as session:
                info = session.info("server")
        except (Failure, RefusedError):
            info = {}
        return self.reader.read(info)

    def others(self, start: StartLines) -> list[LoadLine]:
        """Return the lines that are not in our include file."""
        return [each for each in start.lines if not self.is_ours(each)]

    def adopt(self, line: LoadLine | None, module: LoadedModule) -> None:
        """Make a start load `module` from the module store, instead of from where `line` loads it now.

        The line in the main file is replaced at its place, in one step, so at each moment one line loads the module.
        """
        with self.lock:
            if line is None:
                self._refuse_beside_sentinel()
                self._include.remember(
                    PurePosixPath(module.path).parent.parent, PurePosixPath(module.path), module.args
                )
                return
            change_lines(self.on_agent(line.file), {line: load_line(module.path, line.args)})
            self.written = self.read_as_written()

    def switch(
        self, module_directory: PurePosixPath, module: LoadedModule | None, order: Sequence[PurePosixPath] = ()
    ) -> None:
        """Make the next start load `module`, which the server need not have loaded, and nothing else below `module_directory`.
        None: make it load nothing there. `order`: as in `remember`.

        In the main file, the agent changes the line itself: CONFIG REWRITE writes only what is loaded.
        """
        with self.lock:
            written = self.read_as_written()
            start = self._with_adopted(written)
            if not self._is_in_main(start, module_directory):
                if module is None:
                    self._include.forget(module_directory)
                else:
                    self._include.remember(module_directory, PurePosixPath(module.path), module.args, order)
                return
            lines = [
                line
                for line, now in zip(written.lines, start.lines, strict=True)
                if now.file == start.main and now.is_below(module_directory)
            ]
            text = load_line(module.path, module.args) if module else None
            changes: dict[LoadLine, str | None] = dict.fromkeys(lines)
            if lines:
                changes[lines[0]] = text
            change_lines(self.on_agent(start.main), changes, [text] if text and not lines else [])
            self.written = self.read_as_written()

    def next_load(self, module_directory: PurePosixPath, name: str, version: int) -> LoadedModule | None:
        """Return what the next start loads below the directory, None if nothing. `name` and `version`: of what is there."""
        line = next((each for each in self.read().lines if each.is_below(module_directory)), None)
        return None if line is None else LoadedModule(name=name, version=version, path=line.path, args=line.args)

    def prepare_switch(
        self, module_directory: PurePosixPath, args: Iterable[str] = (), order: Sequence[PurePosixPath] = ()
    ) -> None:
        """Check that `switch` can write the module's line, before the server is stopped."""
        with self.lock:
            start = self._check_line(module_directory, args, order)
            if start.problem:
                raise Failure(
                    Reason.PERSISTENCE_FAILED, f"It is not known what the server loads at its start: {start.problem}"
                )
            if self._is_in_main(start, module_directory) and not self.may_replace(start.main):
                raise Failure(
                    Reason.PERSISTENCE_FAILED,
                    f"The agent cannot change {start.main}. Let the agent's user own the file and write to its directory, or "
                    "see docs/howto/restarts.md.",
                )

    def may_replace(self, file: str) -> bool:
        """Return True if this process may write another file in its place, with the same owner.

        The server names its main file. As root, the agent changes no file of another user than the server's.
        """
        path, user = self.on_agent(file), os.geteuid() or self.reader.uid
        try:
            is_owner = bool(file) and path.lstat().st_uid == user
        except OSError:
            return False
        return is_owner and not path.is_symlink() and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)

    def on_agent(self, path: str) -> Path:
        """Return where the agent sees a file that the server names."""
        return on_host(self.reader.view or ROOT, path)

    def has(self, module_path: PurePosixPath, args: Iterable[str]) -> bool:
        """Return True if a start loads exactly this, or if the lines are not ours."""
        words = tuple(args)
        if self.is_external or self._include.has(module_path, words):
            return True
        return any((each.path, each.args) == (str(module_path), words) for each in self.others(self.read()))

    def names(self, directory: PurePosixPath) -> bool:
        """Return True if a start loads a file below `directory`, as far as the lines are known."""
        return self._include.names(directory) or any(each.is_below(directory) for each in self.others(self.read()))

    def option_lines(self, module_name: str) -> list[OptionLine]:
        """Return the lines that set options of the module. The server does not start with one of an unknown option."""
        return [each for each in self.read().options if each.name.startswith(f"{module_name.lower()}.")]

    def is_in_include(self, directory: PurePosixPath) -> bool:
        """Return True if our include file loads a file below `directory`."""
        return self._include.names(directory)

    def prepare_removal(self, module_directory: PurePosixPath) -> None:
        """Check that the module's lines can be removed, before the server unloads it."""
        with self.lock:
            start = self.read()
            self._refuse_foreign_lines(start, module_directory)
            if self._is_in_main(start, module_directory):
                self._rewrite()
        start = self.read()
        for line in self.option_lines(module_directory.name):
            # CONFIG REWRITE removes those of the main file.
            if line.file != start.main or not self._is_in_main(start, module_directory):
                raise Failure(
                    Reason.PERSISTENCE_CONFLICT,
                    f"The line {line.place} sets {line.name}. Without the module, the server would not start. Remove the "
                    "line, then retry.",
                )

    def prepare(
        self, module_directory: PurePosixPath, args: Iterable[str] = (), order: Sequence[PurePosixPath] = ()
    ) -> None:
        """Check that the module's line can be written, before the server is changed.

        `args`: those of the new line. `order`: the directories of the modules that need or are needed.
        """
        with self.lock:
            if self._is_in_main(self._check_line(module_directory, args, order), module_directory):
                self._rewrite()

    def _check_line(
        self, module_directory: PurePosixPath, args: Iterable[str], order: Sequence[PurePosixPath]
    ) -> StartLines:
        """Check that a line of the module would be read as it is meant, also after CONFIG REWRITE. Return the lines now."""
        start = self.read()
        self._config_rewrite.keep_order([each.name for each in order])
        self._refuse_foreign_lines(start, module_directory)
        if not self._is_in_main(start, module_directory):
            self._refuse_beside_sentinel()
            return start
        if self.owner == "rewrite":
            self._config_rewrite.refuse_related(module_directory.name)
        refuse_quotes(module_directory.name, args)
        return start

    def refuse_new_line(self, module_directory: PurePosixPath) -> None:
        """Raises: `Failure` (persistence_conflict, permission_denied) if our include file gets the module's line, and a
        failover by Sentinel would then stop the next start."""
        if not self.is_external and not self._is_in_main(self.read(), module_directory):
            self._refuse_beside_sentinel()

    def _refuse_foreign_lines(self, start: StartLines, module_directory: PurePosixPath) -> None:
        for line in self.others(start):
            if line.file != start.main and line.is_below(module_directory):
                raise self._conflict(line)

    def _refuse_beside_sentinel(self) -> None:
        refuse_beside_sentinel(self._server, self.reader, node=self._node)

    def remember(
        self,
        module_directory: PurePosixPath,
        module: LoadedModule,
        order: Sequence[PurePosixPath] = (),
    ) -> None:
        """Make a start load `module`, which the server has loaded, and nothing else below `module_directory`.

        Modules below the directories in `order` are loaded in that order. All other lines keep their places.
        """
        if self.is_external:
            return
        with self.lock:
            start = self.read()
            if self._is_in_main(start, module_directory):
                if start.problem or not self._has_only(start, module_directory, module):
                    self._write_main(module_directory, module)
            else:
                self._include.remember(module_directory, PurePosixPath(module.path), module.args, order)

    def restore(self, module_directory: PurePosixPath, module: LoadedModule) -> None:
        """Do the same, but only if a start loads something else below `module_directory`."""
        if self.is_external:
            return
        with self.lock:
            self._include.restore(module_directory, PurePosixPath(module.path), module.args)
            written = self.read_as_written()  # a module that was adopted may be loaded from the store now
            start = self._with_adopted(written)
            is_hidden = self.owner == "rewrite" and start.problem
            is_other = any(each.is_below(module_directory) for each in self.others(start))
            if is_hidden or (is_other and not self._has_only(written, module_directory, module)):
                self._rewrite()

    def redirect(self, directory: PurePosixPath, to: PurePosixPath) -> None:
        """Make a start load from `to` what our include file loads from `directory`."""
        with self.lock:
            self._include.redirect(directory, to)

    def forget(self, directory: PurePosixPath) -> None:
        """Make a start load nothing from `directory`, whose module the server has unloaded. Then the files may be deleted."""
        with self.lock:
            if not self.is_external:
                self._include.forget(directory)
                start = self.read()
                is_hidden = self.owner == "rewrite" and start.problem
                if is_hidden or any(each.file == start.main and each.is_below(directory) for each in start.lines):
                    self._rewrite()
            start = self.read()
            for line in self.others(start):
                if line.is_below(directory):
                    raise self._conflict(line)
            if self.is_external and start.problem:
                raise Failure(
                    Reason.EXTERNAL_CONFIGURATION,
                    f"It is not known if a start of the server loads a file in {directory}, so its files stay: {start.problem} "
                    "Let the agent read the server's configuration, then retry. Or delete the files by hand.",
                )

    @contextmanager
    def parked(self, directory: PurePosixPath) -> Iterator[None]:
        """Make a start load nothing from `directory`. If the block raises, restore the lines.

        The main file has its lines until `forget`: only the server can write it.
        """
        with self._include.parked(directory):
            yield

    def resolve(self, start: StartLines, *, rewrites: bool) -> str:
        """Remove each line of ours with which a start fails: its file was deleted, or another line loads its module too.
        With `rewrite`, move all lines of ours into the main file. Return what was done.

        `start`: the lines now. `rewrites`: no operation is in progress, so the server may write the module's line first, if
        that line names another version than the loaded one.
        """
        if self.is_observer:
            return ""
        unparked, missing = False, []
        if rewrites and self.owner == "include":
            with self.lock:
                unparked = self._include.unpark()  # a full disk has kept the end of a removal from doing it
                missing = self._include.drop_missing(self._is_there)
        if unparked and not missing:
            return f"Restored lines in {self._path}: the removal of their modules has not succeeded."
        if missing:
            return f"Removed from {self._path} the lines of files that do not exist: {', '.join(missing)}."
        start = self._with_adopted(start)
        if rewrites and self.owner == "rewrite" and (moved := self._move_to_main(start)):
            return moved
        with self.lock:
            doubled = self._doubled(start)
            if not doubled:
                return ""
            if rewrites and not self.is_external:
                doubled = self._rewritten(doubled)
            for line in doubled:
                self._include.forget(self._module_directory(line.path))
        return " ".join(
            f"Removed the line of {self._module_directory(each.path).name} from {self._path}: {each.place} loads the module too."
            for each in doubled
        )

    def _move_to_main(self, start: StartLines) -> str:
        """Let the server write the lines of our include file into its main file: a node whose owner was `include` has such
        lines. Return what was done."""
        with self.lock:
            ours = [(path, args) for path, args in self._include.loads() if self.store.is_ours(path)]
            if not ours or time.monotonic() < self._moves_at:
                return ""
            self._moves_at = time.monotonic() + MOVE_SECONDS
            try:
                with self._server.session() as session:
                    loaded = {(each.path, each.args) for each in session.modules()}
                if not loaded.issuperset(ours):
                    return ""
                names = [self._module_directory(path).name for path, _ in ours]
                for each in names:
                    self._config_rewrite.refuse_related(each)
                self._rewrite()
            except (Failure, RefusedError) as error:
                log.warning("The lines in %s stay there: %s", self._path, error)
                return ""
        return f"Moved the lines of {', '.join(names)} from {self._path} to {start.main}."

    def _is_there(self, path: str) -> bool:
        """Return False if a module's file was deleted. While its module's directory cannot be seen, that is not known."""
        if not self.store.is_ours(path):
            return True
        file = self.store.on_agent(path)
        return file.exists() or not file.parents[1].is_dir()

    def _rewritten(self, doubled: list[LoadLine]) -> list[LoadLine]:
        try:
            with self._server.session() as session:
                loaded = {(each.path, each.args) for each in session.modules()}
            if all((each.path, each.args) in loaded for each in doubled):
                return doubled
            self._rewrite()
            return self._doubled(self.read()) or doubled
        except (Failure, RefusedError) as error:
            log.warning("The lines of the main configuration file stay as they are: %s", error)
            return doubled

    def _doubled(self, start: StartLines) -> list[LoadLine]:
        """Return the lines of other files that load a module of which our include file has a line too.

        A line with which the server would not start either, or with other arguments, does not count: its file is missing, or
        CONFIG REWRITE has written it without the quotes that it needs.
        """
        if not any(self.is_ours(each) for each in start.lines):
            return []
        return [
            each
            for each in self.others(start)
            if self.store.is_ours(each.path)
            and self._include.names(self._module_directory(each.path))
            and not self._include.has_quotes(self._module_directory(each.path))
            and self.store.on_agent(each.path).is_file()
        ]

    def _is_in_main(self, start: StartLines, module_directory: PurePosixPath) -> bool:
        """Return True if the server writes the module's line, and not the agent."""
        return self.owner == "rewrite" or any(
            each.file == start.main and each.is_below(module_directory) for each in start.lines if each.file
        )

    def _write_main(self, module_directory: PurePosixPath, module: LoadedModule) -> None:
        start = self._rewrite()
        if start.problem:
            return  # the server has written the file, and only it may read it
        if not self._has_only(start, module_directory, module):
            lines = [each for each in self.others(start) if each.is_below(module_directory)]
            found = " and ".join(each.place for each in lines) or "no line"
            raise Failure(
                Reason.PERSISTENCE_FAILED,
                f"After CONFIG REWRITE, {start.main} should have the line `{load_line(module.path, module.args)}`, but "
                f"{found} loads the module.",
            )

    def _has_only(self, start: StartLines, module_directory: PurePosixPath, module: LoadedModule) -> bool:
        """Return True if the one line of the module that is not ours loads exactly `module`."""
        lines = [(each.path, each.args) for each in self.others(start) if each.is_below(module_directory)]
        return lines == [(module.path, module.args)]

    def rewrite(self) -> None:
        """Let the server write its configuration file, whose lines it owns."""
        with self.lock:
            self._rewrite()

    def _rewrite(self) -> StartLines:
        """Let the server write its configuration file. Return its lines."""
        written = [each.path for each in self._config_rewrite.run() if self.store.is_ours(each.path)]
        if self.owner != "rewrite":
            written = [each.path for each in self._doubled(self.read())]
        for path in written:
            self._include.forget(self._module_directory(path))
        self.written = self.read_as_written()
        return self._with_adopted(self.written)

    def _conflict(self, line: LoadLine) -> Failure:
        return Failure(
            Reason.PERSISTENCE_CONFLICT,
            f"A start of the server loads {line.path} by a line that is not Modfleet's: {line.place}. Remove the line "
            f"`{load_line(line.path, line.args)}`, then retry.",
        )

    def _module_directory(self, path: str) -> PurePosixPath:
        return self.store.server_root / PurePosixPath(path).relative_to(self.store.server_root).parts[0]

    def is_ours(self, line: LoadLine) -> bool:
        """Return True if the line is in our include file."""
        path = self._path
        if path.is_relative_to(self.store.root):
            path = Path(self.store.server_root / path.relative_to(self.store.root))
        return line.file == str(path) or (bool(line.file) and os.path.realpath(line.file) == os.path.realpath(path))
