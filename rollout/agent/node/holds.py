"""Keeps a replica from becoming the master while other copies of its shard have another version of a module.

The control plane knows the other copies, so it decides; the agent asks it at each heartbeat while it holds something. The value
of the server's parameter follows from the file alone: it is set again after each start of the server, and restored as soon as
nothing needs it. docs/adr/0019-restarts.md says why.
"""

import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace

from rollout.agent.control_plane.api import HoldsAnswer, ask_holds
from rollout.agent.control_plane.trust import Trust
from rollout.agent.failure import Failure
from rollout.agent.node.journal import Journal
from rollout.agent.node.parameter_line import correct_line
from rollout.agent.node.persistence import Persistence
from rollout.agent.restart.kept_data import Kept, KeptData
from rollout.agent.restart.withheld import NO_FAILOVER, PRIORITY, VALUES, Hold, Withheld, WithheldFile
from rollout.agent.server import place
from rollout.agent.server.session import RefusedError, Server, Session
from rollout.agent.settings import AgentSettings
from rollout.messages import Reason, ServerState
from rollout.signing import Purpose

log = logging.getLogger(__name__)

#: If neither the master nor the control plane can be reached for so long, the replica may become the master, seconds.
LOST_SECONDS = 60.0


class Holds:
    """`kept`: the data from before operations. They are deleted when the control plane says so."""

    def __init__(
        self,
        settings: AgentSettings,
        trust: Trust,
        server: Server,
        journal: Journal,
        persistence: Persistence,
        todo: dict[str, str],
        kept: KeptData,
    ) -> None:
        self._settings, self._trust, self._server, self._journal = settings, trust, server, journal
        self._persistence, self._todo, self._kept = persistence, todo, kept
        self.file = WithheldFile(settings.journal_dir)
        #: Held while the file and the server's parameter change.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._problem = ""

    @property
    def can_ask(self) -> bool:
        return self._trust.identity is not None

    def is_withheld(self) -> bool:
        """Return True if the server is kept from becoming the master, also if that is not known. Never waits."""
        try:
            return self.file.read().is_set
        except Failure:
            return True

    # --- Steps of an operation ----------------------------------------------------------------------------------------

    def begin(self, hold: Hold) -> None:
        """Keep the server, which runs another version still, from becoming the master, if the control plane says so.

        Raises: `Failure`, `RefusedError`, `OSError`. Then nothing has changed but the file.
        """
        self._keep(hold)
        answer = self._asked(hold)
        if answer and answer.withhold:  # else what another version needs stays until the restart
            self._keep(replace(hold, withholds=True))
            self.settle()

    def undo(self, rollout: str, module_name: str, version: int) -> None:
        """End the hold of an operation that is undone. The server runs the former version again."""
        with self._lock:
            found = self.file.read()
            holds = _without(found.holds, rollout, module_name, version)
            if holds != found.holds:
                self.file.write(replace(found, holds=holds))
                self.try_to_settle()

    # --- At each heartbeat --------------------------------------------------------------------------------------------

    def look(self, state: ServerState) -> None:
        """Ask the control plane, and set or restore the parameter. Only the thread of the heartbeats calls it. Never waits.
        `state`: of the server now."""
        if state.problem or (self._thread and self._thread.is_alive()):
            return
        try:
            if self.file.read() == Withheld() and not self._kept.read():
                return
        except Failure as error:
            self._warn(error)
            return
        lost = state.link_down_seconds is not None and state.link_down_seconds >= LOST_SECONDS
        self._thread = threading.Thread(target=self._look, args=(lost,), name="holds", daemon=True)
        self._thread.start()

    def _look(self, is_lost: bool) -> None:
        self.try_to_settle()  # first: the server may have been restarted
        try:
            self._end_left()
            for each in self.file.read().newest:
                self._learn(each, is_lost=is_lost)
        except (Failure, RefusedError, OSError) as error:
            self._warn(error)
        self.try_to_settle()

    def _learn(self, hold: Hold, *, is_lost: bool) -> None:
        answer = self._asked(hold) or (HoldsAnswer(withhold=False, keep_data=True) if is_lost else None)
        if answer is None:
            return
        own = [each for each in self._kept.of(hold.module_name) if each.rollout == hold.rollout]
        keeps_data = answer.keep_data or not all(self._drop(each) for each in own)
        with self._lock:
            found = self.file.read()
            if hold not in found.newest:
                return  # an operation has changed it meanwhile
            if answer.withhold or keeps_data:
                self._keep(replace(hold, withholds=answer.withhold))
            else:
                others = tuple(each for each in found.holds if each.module_name != hold.module_name)
                self.file.write(replace(found, holds=others))

    def _end_left(self) -> None:
        """End the holds of versions that the server has not loaded, and delete the data from before them, unless an operation is
        about to load them."""
        with self._journal.try_lock() as is_free, self._server.session() as session:
            if not is_free:
                return
            loaded = {(each.name, each.version) for each in session.modules()}

            def is_left(each: Hold | Kept) -> bool:
                entry = self._journal.entry(each.module_name)
                return (each.module_name, each.version) not in loaded and (entry is None or entry.report is not None)

            for hold in filter(is_left, self.file.read().newest):
                self.undo(hold.rollout, hold.module_name, hold.version)
            for kept in filter(is_left, self._kept.read()):
                self._drop(kept)

    def _drop(self, kept: Kept) -> bool:
        """Delete the data. Return False if that is not possible now: then it is tried again."""
        try:
            self._kept.drop(kept)
        except OSError as error:
            self._warn(error)
            return False
        return True

    # --- The parameter ------------------------------------------------------------------------------------------------

    def try_to_settle(self) -> None:
        """Do the same as `settle`, but leave it to the next heartbeat if that is not possible now."""
        try:
            self.settle()
        except (Failure, RefusedError, OSError) as error:
            self._warn(error)

    def settle(self) -> None:
        """Make the server's parameter what the file says. May run at any time, as often as it likes.

        Raises: `Failure`, `RefusedError`, `OSError`.
        """
        with self._lock:
            found = self.file.read()
            if found == Withheld():
                return
            if found.is_needed or found.former:
                with self._server.session() as session:
                    found = self._settled(session, found)
            if found.line:
                found = self._with_line(found)
            self.file.write(found)

    def _settled(self, session: Session, found: Withheld) -> Withheld:
        info = session.info("replication", "cluster")
        # A master is one already: a person or a failover has decided.
        if found.is_needed and place.role(info) == "replica":
            name = NO_FAILOVER if info.get("cluster_enabled") == "1" else PRIORITY
            if (now := _value(session, name)) != VALUES[name] or not found.former:
                # What it has now is what a person has set, or its file after a restart: that comes back.
                found = replace(found, parameter=name, former=now, line="")
                self.file.write(found)
                session.call("CONFIG", "SET", name, VALUES[name])
        elif found.former:
            session.call("CONFIG", "SET", found.parameter, found.former)
            if _value(session, found.parameter) != found.former:
                words = f"The server has not taken {found.parameter} {found.former}."
                raise Failure(Reason.AGENT_ERROR, words)
            found = replace(found, former="", line=found.former if found.is_set else "")
        return found

    def _with_line(self, found: Withheld) -> Withheld:
        """Correct the line of a configuration file that was written meanwhile, as Sentinel does it."""
        problem = correct_line(self._persistence, found.parameter, VALUES[found.parameter], found.line)
        if problem:
            self._todo[found.parameter] = problem
            return found
        self._todo.pop(found.parameter, None)
        return replace(found, line="")

    # --- The file, and the control plane ------------------------------------------------------------------------------

    def _keep(self, hold: Hold) -> None:
        with self._lock:
            found = self.file.read()
            others = _without(found.holds, hold.rollout, hold.module_name, hold.version)
            self.file.write(replace(found, holds=(*others, hold)))

    def _asked(self, hold: Hold) -> HoldsAnswer | None:
        """Return the control plane's answer, None if it cannot be asked now."""
        if (identity := self._trust.identity) is None:
            return None
        message = {
            "rollout": hold.rollout,
            "module_name": hold.module_name,
            "version": hold.version,
            "sent_at": time.time(),
        }
        try:
            answer = ask_holds(self._settings, identity.sign(Purpose.HOLDS, message))
        except OSError as error:
            self._warn(error)
            return None
        self._problem = ""
        return answer

    def _warn(self, error: Exception) -> None:
        """Log a problem once, until it changes."""
        words = f"What the node holds after an operation stays as it is: {error}"
        if words != self._problem:
            log.warning("%s", words)
        self._problem = words


def _without(holds: tuple[Hold, ...], *identity: str | int) -> tuple[Hold, ...]:
    """Return the holds but one. A rollout may hold two versions of a module: the one that it has brought, and the one to which it
    goes back."""
    return tuple(each for each in holds if (each.rollout, each.module_name, each.version) != identity)


def _value(session: Session, name: str) -> str:
    """Raises: `RefusedError`; `Failure` if the server has no such parameter."""
    with suppress(IndexError, TypeError):
        return str(session.call("CONFIG", "GET", name)[1])
    raise Failure(Reason.AGENT_ERROR, f"The server does not say its {name}.")
