"""One node: its disk, its server, its journal, and its heartbeats."""

import importlib.metadata
import logging
import re
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import PurePosixPath

from rollout.agent.control_plane.trust import Trust
from rollout.agent.failure import Failure
from rollout.agent.inspection.host import PLATFORM, read_host_id, read_operating_system
from rollout.agent.inspection.loaded_file import LoadedFile
from rollout.agent.module_files.digests import Digests
from rollout.agent.module_files.module_store import ModuleStore
from rollout.agent.node.configuration_watch import ConfigurationWatch
from rollout.agent.node.examinations import Examination, Examinations
from rollout.agent.node.foreign_files import ForeignFiles
from rollout.agent.node.heartbeat_limit import within_limit
from rollout.agent.node.holds import Holds
from rollout.agent.node.journal import Journal
from rollout.agent.node.maintenance import Maintenance
from rollout.agent.node.persistence import Persistence
from rollout.agent.node.readings import Readings
from rollout.agent.node.start_checks import StartChecks
from rollout.agent.node.take_over import TakeOver, take_over
from rollout.agent.restart.kept_data import KeptData
from rollout.agent.restart.saving import Resources, resources, why_not_save
from rollout.agent.restart.supervision import Supervision, supervision_of
from rollout.agent.scratch.start import StartResult
from rollout.agent.server.adoptions import Adoptions
from rollout.agent.server.call_history import CallHistory
from rollout.agent.server.call_outcomes import CallOutcomes
from rollout.agent.server.causes import refusal
from rollout.agent.server.facts import ServerFacts, facts_from, observe
from rollout.agent.server.full_syncs import FullSyncs
from rollout.agent.server.observation import Observer
from rollout.agent.server.options import read_options
from rollout.agent.server.server_log import ServerLog
from rollout.agent.server.session import (
    LoadedModule,
    RefusedError,
    Server,
    ServerLoadingError,
    ServerSilentError,
    Session,
    UserRefusedError,
)
from rollout.agent.server.texts import fact, storable
from rollout.agent.settings import AgentSettings
from rollout.messages import (
    Capability,
    ConfigurationChange,
    Finding,
    FindingStatus,
    Heartbeat,
    InstalledModule,
    Inventory,
    NodeProfile,
    ServerModule,
    ServerProblem,
    ServerState,
    WouldStart,
    operating_system,
)
from rollout.signing import PROTOCOL

#: Limits of `messages.NodeProfile.other_modules`.
OTHER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
MOST_OTHERS = 64

#: How long the server may take for the answer to a PING between two heartbeats, seconds. With the time between two of them
#: and the answer to the next heartbeat, it is 10 s: so soon a heartbeat says that the server hangs.
PING_SECONDS = 2.5

#: How the server is restarted is looked up again after so many seconds.
SUPERVISION_SECONDS = 60.0

log = logging.getLogger(__name__)

#: The agent's release; empty if it is not installed as a package.
RELEASE = next((each.version for each in importlib.metadata.distributions(name="modfleet")), "")


class Node:
    """The node of these settings. Threads may read its state while one of them changes it."""

    def __init__(
        self,
        settings: AgentSettings,
        trust: Trust | None = None,
        examinations: Examinations | None = None,
        start_checks: StartChecks | None = None,
    ) -> None:
        self.settings = settings
        self._examinations = examinations
        self._examined_modules: list[tuple[str, int, str]] = []
        self._start_checks = start_checks
        self.trust = trust or Trust(settings)
        self.module_store = ModuleStore(settings.modules_dir, settings.server_modules_dir or settings.modules_dir)
        self.adoptions = Adoptions(settings.journal_dir)
        self.server = Server(settings, self.adoptions)
        self.journal = Journal(settings.journal_dir)
        self.digests = Digests()
        self.persistence = Persistence(settings, self.module_store, self.server, self.adoptions)
        self.maintenance = Maintenance(
            settings, self.server, self.journal, self.persistence, self.module_store, self.facts
        )
        #: What the owner of the server's configuration must do, by module or parameter. Threads share it: each access is one step.
        self.todo: dict[str, str] = {}
        self.holds = Holds(
            settings, self.trust, self.server, self.journal, self.persistence, self.todo, KeptData(settings.journal_dir)
        )
        self._foreign_files = ForeignFiles()
        self._watch = ConfigurationWatch(self.persistence, settings.journal_dir)
        self._info: Mapping[str, str] = {}
        self._host = sha256((settings.host_id or read_host_id()).encode()).hexdigest()[:32]
        self.operating_system = operating_system(settings.operating_system) or read_operating_system()
        self._readings = Readings()
        self._last_state = ServerState()
        #: What the server's clients have called lately. Each heartbeat adds to it.
        self.calls = CallHistory()
        self.outcomes = CallOutcomes()
        self.observer = Observer(self.module_store.is_ours, self.calls, self.outcomes, url=settings.server_url)
        self.full_syncs = FullSyncs()
        self._is_silent = False
        #: The server answered the last heartbeat, or its silence is new.
        self._is_watched = False
        #: Since the last heartbeat. It is read when the server's process is another one.
        self._log = ServerLog(settings)
        weakref.finalize(self, self._log.close)
        self._run_id = self._crash = ""
        #: As last read.
        self._modules: tuple[InstalledModule, ...] = ()
        self.incarnation = self._readings.incarnation
        self._supervision: Supervision | None = None
        self._supervision_key, self._supervision_until = "", 0.0

    def is_current(self, loaded: LoadedModule, run_id: str, module_name: str, version: int) -> bool:
        """Return True if the server process `run_id` has the files of the version's directory in memory."""
        if not loaded.path.startswith(f"{self.module_store.server_path(module_name, version)}/"):
            return False
        replaced_under = self.module_store.replaced_under(module_name, version)
        return not replaced_under or replaced_under != run_id

    def settle(self, module_name: str, version: int) -> None:
        """Delete the files of the version that were set aside, and make a start load the new ones."""
        if former := self.module_store.former(module_name, version):
            self.persistence.redirect(former, self.module_store.server_path(module_name, version))
            try:
                self.persistence.forget(former)
            except Failure as failure:
                log.warning("The former files of %s %s stay: %s", module_name, version, failure)
                return
            if self._has_loaded_from(former):
                log.warning("The former files of %s %s stay: the server has loaded them", module_name, version)
                return
            self.module_store.settle(module_name, version)

    def _has_loaded_from(self, directory: PurePosixPath) -> bool:
        """Return True if the server was started while its line named this directory: CONFIG REWRITE writes it again."""
        try:
            modules = self.facts().modules
        except Failure:
            return False
        return any(PurePosixPath(each.path).is_relative_to(directory) for each in modules)

    def recover(self, module_name: str, *, unfinished: bool) -> None:
        """Clean up the module after a crash. Files that an `unfinished` operation set aside stay, for its repetition."""
        for version in self.module_store.recover(module_name):
            if not unfinished:
                self.settle(module_name, version)

    def facts(self) -> ServerFacts:
        """Return the state of the server. Raises: `Failure` (server_unreachable, permission_denied, module_command_disabled)."""
        return self._read()[1]

    def _read(self) -> tuple[Inventory, ServerFacts]:
        inventory = self._readings.begin()
        try:
            with self.server.session() as session:
                facts = observe(session)
        except RefusedError as error:
            raise refusal(error) from error
        self._readings.keep(inventory, facts)
        return inventory, facts

    def commands_of(self, module_name: str) -> tuple[str, ...]:
        """Return the names of the commands that a loaded module has registered; none if the server does not say."""
        try:
            with self.server.session() as session:
                return tuple(session.commands_of(module_name))
        except (Failure, RefusedError):
            return ()

    def options_of(self, module_name: str) -> dict[str, str] | None:
        """Return the options of a loaded module by name; None if the server does not say."""
        try:
            with self.server.session() as session:
                return read_options(session, module_name)
        except Failure:
            return None

    @property
    def would_not_start(self) -> bool:
        """Return True if the newest start check says that the server would not start again."""
        return self._start_checks is not None and self._start_checks.is_no

    def check_start(self) -> None:
        """Check again if the server would start. Never waits."""
        if self._start_checks:
            self._start_checks.again()

    def note_start(self, result: StartResult) -> None:
        """Replace the newest result of the start check by one that a scratch server has shown for the server as it is now."""
        if self._start_checks:
            self._start_checks.note(result)

    def inventory(self) -> Inventory:
        """Read what is installed from the disk and the server. Raises: `OSError`."""
        inventory, facts = self._read_or_last()
        return replace(inventory, modules=self._installed(facts))

    def heartbeat(self, *, hello: bool) -> Heartbeat:
        """Return the heartbeat to send now. If the disk cannot be read, it has the modules that were last read."""
        inventory, facts, state = self._observed()
        try:
            modules = self._installed(facts)
        except OSError as error:
            log.warning("The modules directory cannot be read: %s", error)
            modules = self._modules
        settings, changes = self.settings, self._configuration_changes()
        if self._info:
            state = self._last_state = replace(state, save_problem=self._save_problem())
        known = self._readings.facts
        if self._start_checks and (start := self._start_checks.newest(self._info, known.modules)):
            state = replace(state, would_start=start.result, would_start_reason=start.reason)
        # Not before the broker has accepted a hello: the doctor would find that this node is not let in yet.
        examined = None if hello else self._examined(state, changes)
        no_findings = None if self._examinations else ()
        found = self._supervised()
        self.maintenance.look(state)
        self.holds.look(state)
        doctor = examined.findings if examined else no_findings
        heartbeat = Heartbeat(
            node=settings.node,
            hello=hello,
            interval_seconds=settings.beat_seconds,
            profile=NodeProfile(
                platform=PLATFORM,
                operating_system=self.operating_system,
                # While the server is away, as last read: each change is an event, and the rate of events is limited.
                server=known.server,
                server_version=known.version[:32],
                redis_version=known.redis_version[:32],
                role=known.role,
                api_hosts=settings.api_hosts,
                labels=dict(settings.labels),
                other_modules=self._other_modules(),
            ),
            inventory=replace(inventory, modules=modules),
            generations=self.journal.generations(),
            sent_at=time.time(),
            protocol=PROTOCOL,
            capabilities=() if settings.observe else tuple(Capability),
            agent_version=RELEASE,
            host=self._host,
            facts=replace(
                state,
                include_seen=self._include_seen(doctor),
                persistence=settings.persistence,
                restart=found.way,
                failover=settings.failover,
                restart_problem=storable(found.refusal)[:1000],
                maintenance=self.maintenance.word(),
                ended=tuple(self.maintenance.ended),
                withheld=self.holds.is_withheld(),
                to_do=storable(" ".join(dict(self.todo).values()))[:1000],
                configuration_changes=changes,
                modules=self._with_origins(state),
            ),
            doctor=doctor,
            examined_seconds_ago=min(examined.seconds_ago, 86_400.0) if examined else None,
        )
        return within_limit(heartbeat)

    def _save_problem(self) -> str:
        pid, (directory, file) = self.persistence.reader.pid, self.observer.data_file
        left = resources(pid, directory, file) if pid and directory and file else Resources()
        return storable(why_not_save(self._info, left))

    def _supervised(self) -> Supervision:
        """Return how the server is restarted. systemd is asked once a minute, and again when the server was restarted."""
        key, now = self._info.get("run_id", ""), time.monotonic()
        if self._supervision is None or (key and (key != self._supervision_key or now > self._supervision_until)):
            self._supervision = supervision_of(self.settings, self._info)
            self._supervision_key, self._supervision_until = key, now + SUPERVISION_SECONDS
        return self._supervision

    def _examined(self, state: ServerState, changes: tuple[ConfigurationChange, ...]) -> Examination | None:
        if self._examinations is None:
            return None
        with self.journal.try_lock() as is_free:
            if is_free:  # an operation changes modules several times
                self._examined_modules = sorted((each.name, each.version, each.path) for each in state.modules)
        newest = changes[-1].id if changes else ""
        return self._examinations.newest(
            f"{state.run_id} {state.problem} {state.would_start == WouldStart.NO}",
            f"{self._examined_modules} {newest} {bool(state.sentinels)}",
        )

    def _include_seen(self, doctor: Sequence[Finding] | None) -> bool | None:
        found = next((each.status for each in doctor or () if each.check == "include_line"), None)
        known = {FindingStatus.PASS: True, FindingStatus.FAIL: False}
        is_needed = self.settings.persistence == "include" and not self.settings.observe
        return known.get(found) if found and is_needed else None

    def repair_configuration(self) -> None:
        """Put right what another hand has changed in the server's configuration since the last heartbeat. The caller holds the journal,
        and no operation has begun.
        """
        try:
            with self.server.session() as session:
                info = session.info("server")
        except (Failure, RefusedError):
            info = {}  # its files are read all the same
        self._watch.observe(info, rewrites=True)

    def _configuration_changes(self) -> tuple[ConfigurationChange, ...]:
        with self.journal.try_lock() as is_free:
            return self._watch.observe(self._info, rewrites=is_free)

    def _with_origins(self, state: ServerState) -> tuple[ServerModule, ...]:
        """Add where adopted modules come from, and what an adoption of the others would do. Never waits for their files."""
        adopted = {
            (each.name, each.version, each.target): fact(each.path)
            for each in self.adoptions.all()
            if each.run_id == state.run_id
        }
        modules = [
            replace(each, adopted_from=adopted.get((each.name, each.version, each.path), "")) for each in state.modules
        ]
        foreign = {each.path for each in modules if not each.ours and not each.bundled}
        if not foreign or not self._info:
            return tuple(modules)
        reader = self.persistence.reader
        found = self._foreign_files.newest(state.run_id, foreign, reader.pid, reader.view, reader.started)
        start = reader.read({})
        return tuple(
            self._with_take_over(each, found[each.path], take_over(self.persistence, start, each.name, each.path))
            if each.path in foreign
            else each
            for each in modules
        )

    def _with_take_over(self, module: ServerModule, file: LoadedFile, found: TakeOver) -> ServerModule:
        return replace(
            module,
            sha256=file.sha256,
            line=fact(found.place),
            obstacle=fact(file.problem or found.obstacle),
            by_person=found.by_person,
        )

    def _observed(self) -> tuple[Inventory, ServerFacts, ServerState]:
        """Observe the server. A server that does not answer in time may be busy: its state is the last one, and only the
        second time in a row is it a problem."""
        inventory = self._readings.begin()
        was_silent, self._is_silent, self._is_watched = self._is_silent, False, False
        self._info = {}
        try:
            with self.server.session() as session:
                info, state, modules = self.observer.observe(session)
                self.full_syncs.look(info, self._log.full_syncs())  # then the mark of the log moves
                crash = self._sign_of_crash(session, state.run_id)
                state = replace(state, crash=crash, full_syncs=self.full_syncs.lately())
        except ServerSilentError:
            self._is_silent = self._is_watched = True
            last, facts = self._readings.newest() or (inventory, ServerFacts())
            if not was_silent and self._readings.newest():
                return last, facts, self._last_state
            words = "The server has not answered two heartbeats in a row."
            return last, facts, replace(self._last_state, problem=ServerProblem.SERVER_SILENT, message=words)
        except ServerLoadingError as error:
            problem, words = ServerProblem.SERVER_LOADING, error.message
        except (RefusedError, UserRefusedError, OSError, ValueError) as error:
            problem = ServerProblem.SERVER_REFUSES
            words = f"The server cannot be used by this agent: {self._refusal(error)}."
        except Failure as failure:
            log.warning("The server's modules are not known: %s", failure)
            problem, words = ServerProblem.SERVER_UNREACHABLE, failure.message
        except Exception as error:  # noqa: BLE001 - not a Redis: a node without heartbeats would count as offline
            problem = ServerProblem.SERVER_REFUSES
            words = f"The server answers in a way that the agent cannot read: {type(error).__name__}: {error}."
        else:
            self._is_watched = True
            self._info, self._last_state = info, state
            facts = facts_from(info, modules)
            self._readings.keep(inventory, facts)
            return inventory, facts, state
        return inventory, ServerFacts(), ServerState(problem=problem, message=storable(words[:500]))

    def is_silent(self) -> bool:
        """Return True if the server does not answer a PING in time. If it does not answer the next heartbeat either, that
        heartbeat says so."""
        if not self._is_watched:
            return False
        try:
            with self.server.session(PING_SECONDS) as session:
                session.ping()
        except ServerSilentError:
            self._is_silent = True
            return True
        except (Failure, RefusedError, OSError, ValueError):
            pass
        return False

    def _sign_of_crash(self, session: Session, run_id: str) -> str:
        """Return what says that the process before `run_id` has crashed, as far as this agent has seen."""
        if run_id == self._run_id:
            self._log.skip()
            return self._crash
        self._crash = self._log.sign_of_crash() if self._run_id else ""
        self._run_id = run_id
        self._log.close()
        self._log.mark(session, may_ask=not self.observer.is_refused("CONFIG", "GET"))
        return self._crash

    def _refusal(self, error: Exception) -> str:
        if isinstance(error, UserRefusedError):
            return f"it refuses the user {self.settings.server_user or 'default'} or its password"
        if isinstance(error, OSError) and error.filename and error.strerror:
            return f"{error.filename} cannot be read: {error.strerror}"
        return str(error).rstrip(".")

    def _other_modules(self) -> tuple[str, ...]:
        """Return the names of other loaded modules. While the server is away, they are those that were last read."""
        own = f"{self.settings.server_modules_dir or self.settings.modules_dir}/"
        names = {each.name for each in self._readings.facts.modules if not each.path.startswith(own)}
        return tuple(sorted(name for name in names if OTHER_NAME.fullmatch(name)))[:MOST_OTHERS]

    def _installed(self, facts: ServerFacts) -> tuple[InstalledModule, ...]:
        with self.module_store.lock:
            versions = tuple(self.module_store.versions())
            self._modules = modules = tuple(
                InstalledModule(
                    module_name=name,
                    version=version,
                    content_sha256=self.digests.content(directory),
                    loaded=any(self.is_current(each, facts.run_id, name, version) for each in facts.modules),
                )
                for name, version, directory in versions
            )
            self.digests.forget_others(directory for _, _, directory in versions)
        return modules

    def _read_or_last(self) -> tuple[Inventory, ServerFacts]:
        """Return the state of the server. While it is busy, return the last known state: its modules are still loaded."""
        try:
            return self._read()
        except ServerSilentError:
            return self._readings.newest() or (self._readings.begin(), ServerFacts())
        except Failure as failure:
            log.warning("The server's modules are not known: %s", failure)
            return self._readings.begin(), ServerFacts()
