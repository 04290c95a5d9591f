"""The restart of the server in progress on this node, from before its first step until the server is in service again."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from rollout.agent.failover.failover import settle
from rollout.agent.failure import Failure
from rollout.agent.module_files.module_store import ModuleStore
from rollout.agent.node.journal import Before, Entry, Journal
from rollout.agent.node.persistence import Persistence
from rollout.agent.restart.held import Held, HeldFile
from rollout.agent.restart.hooks import CommandFailedError, run_command
from rollout.agent.restart.process import RestartFailedError, start
from rollout.agent.server.facts import ServerFacts
from rollout.agent.server.session import LoadedModule, RefusedError, Server
from rollout.agent.settings import AgentSettings
from rollout.messages import MOST_ENDED, ServerProblem, ServerState

log = logging.getLogger(__name__)

#: The control plane sends the command of an unfinished operation again, at least every 300 s. If it has not done so for longer,
#: it has ended the operation, seconds.
LEFT_SECONDS = 900.0


class Maintenance:
    """`held`: its file. `ended`: the last processes of the server that the agent has ended, by their `run_id`."""

    def __init__(
        self,
        settings: AgentSettings,
        server: Server,
        journal: Journal,
        persistence: Persistence,
        module_store: ModuleStore,
        facts: Callable[[], ServerFacts],
    ) -> None:
        self._settings, self._server, self._journal = settings, server, journal
        self._persistence, self._module_store, self._facts = persistence, module_store, facts
        self.held = HeldFile(settings.journal_dir)
        self.ended: deque[str] = deque(self.held.ended(), maxlen=MOST_ENDED)
        self._lock = threading.Lock()
        #: What `look` has seen last, since when, how often it has started the server, and what that loaded first.
        self._left: Held | None = None
        self._since = 0.0
        self._starts = 0
        self._changed: LoadedModule | None = None
        self._thread: threading.Thread | None = None

    def environ(self, held: Held) -> dict[str, str]:
        """Return what the commands of the settings get in their environment."""
        return {"NODE": self._settings.node, **held.environ}

    def settle_failover(self) -> None:
        """Finish or undo a failover that an agent has begun before it was killed. Clients may wait for that."""
        with self._lock:
            try:
                held = self.held.read()
                if held and held.failover and not held.failed_over:
                    done = settle(self._server, self._settings, held.failover)
                    self.held.write(replace(held, failed_over=done))
            except Failure as error:
                log.warning("The failover is not finished: %s", error)

    def end(self, only: Held | None = None) -> str:
        """Run the command of the settings that follows a restart, and note that the node is in service again. A failover that was
        interrupted is finished or undone before. Return what has failed, one sentence; empty if nothing has. `only`: do nothing
        if another restart is in progress."""
        with self._lock:
            held, problem = self.held.read(), ""
            if held is None or only not in {None, held}:
                return ""
            if held.failover and not held.failed_over:
                try:
                    settle(self._server, self._settings, held.failover)
                except Failure as error:
                    log.warning("The failover is not finished: %s", error)
                    return f"The failover is not finished: {error}"
            if (words := self._settings.post_command) and held.restarts:
                try:
                    run_command(words, self.environ(held))
                except CommandFailedError as error:
                    problem = f"MODFLEET_POST_COMMAND: {error}"
                    log.warning("%s", problem)
            self.held.clear()
            return problem

    def word(self) -> str:
        """Return `restart` from before the server is ended until its operation has ended, then `recovery` until the server is in
        service again; else an empty text. Never waits."""
        try:
            if (held := self.held.read()) is None:
                return ""
            with self._journal.try_lock() as is_free:
                entry = self._journal.entry(held.module_name) if is_free else None
        except (Failure, OSError):
            return "recovery"
        return "recovery" if is_free and _unfinished(held, entry) is None else "restart"

    # --- A restart that its operation has left: it failed while the server was away, or its command was lost -----------

    def look(self, state: ServerState) -> None:
        """End a restart that is left, or start the server that it has ended. Only the thread of the heartbeats calls it. Never
        waits. `state`: of the server now."""
        if (read := self._read()) is None:
            return
        held, entry = read
        if held != self._left:
            self._left, self._since, self._starts = held, time.monotonic(), 0
        if held is None:
            return
        own, is_due = _unfinished(held, entry), time.monotonic() - self._since >= LEFT_SECONDS
        if not state.problem:
            if is_due or not own:
                self._begin(lambda: self._end_left(held, is_unfinished=own is not None))
        # Only a server that does not run: one that reads its data would begin again.
        elif (
            held.restarts
            and state.problem is ServerProblem.SERVER_UNREACHABLE
            and (is_due or not (own or self._starts))
        ):
            self._since, self._starts, number = time.monotonic(), self._starts + 1, self._starts
            self._begin(lambda: self._start(held, own.before if own else None, number))

    def _read(self) -> tuple[Held | None, Entry | None] | None:
        """Return None while an operation runs, or a start of ours, and if a file cannot be read."""
        with self._journal.try_lock() as is_free:
            try:
                if not is_free:
                    return None
                held = self.held.read()
                return held, self._journal.entry(held.module_name) if held else None
            except (Failure, OSError) as error:
                log.warning("%s", error)
                return None

    def _begin(self, work: Callable[[], object]) -> None:
        if self._thread is None or not self._thread.is_alive():  # the post-command may take longer than a heartbeat
            self._thread = threading.Thread(target=work, name="left-restart", daemon=True)
            self._thread.start()

    def _end_left(self, held: Held, *, is_unfinished: bool) -> None:
        """End the restart. If its operation is unfinished, the server starts next time with what it has loaded now: the agent was
        killed between the change of the line and the restart."""
        if is_unfinished and held.restarts:
            with self._journal.lock():
                try:
                    if self.held.read() != held:
                        return
                    self._keep_what_is_loaded(held)
                except (Failure, OSError, RefusedError) as error:
                    log.warning("The line after an interrupted restart is not checked: %s", error)
        self.end(held)

    def _keep_what_is_loaded(self, held: Held) -> None:
        store = self._module_store
        loaded = next((each for each in self._facts().modules if each.name == held.module_name), None)
        is_foreign = loaded is not None and not store.is_ours(loaded.path)
        # While files are being replaced, the path alone does not say which ones it has loaded.
        if not is_foreign and not store.former(held.module_name, held.version):
            self._persistence.switch(store.server_path(held.module_name, held.version).parent, loaded)

    def _start(self, held: Held, former: Before | None, number: int) -> None:
        """Start the server. `former`: what it had before, if the operation has not come to its end. Then it is started as it was
        changed, as it was before, and so on: one of the two may not be able to read the data."""
        directory = self._module_store.server_path(held.module_name, held.version).parent
        with self._journal.lock():
            try:
                if self.held.read() != held:
                    return
                if former and number:
                    self._persistence.switch(directory, former.loaded if number % 2 else self._changed)
                elif former:
                    self._changed = self._persistence.next_load(directory, held.module_name, held.version)
                start(self._settings, held.way, held.unit, self.environ(held))
            except (Failure, OSError, RestartFailedError) as error:
                log.warning("The server could not be started after an interrupted restart: %s", error)


def _unfinished(held: Held, entry: Entry | None) -> Entry | None:
    """Return the journal's entry of the restart's operation, None if that has ended, or a newer one has taken its place."""
    return entry if entry and entry.report is None and entry.order == (held.generation, held.attempt) else None
