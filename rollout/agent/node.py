"""One node: its disk, its server, its journal, and what it says of itself."""

import logging
import platform
import re
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rollout.agent.digests import Digests
from rollout.agent.failure import Failure
from rollout.agent.include import IncludeFile
from rollout.agent.journal import Journal
from rollout.agent.module_store import ModuleStore
from rollout.agent.server import LoadedModule, RefusedError, Server, ServerSilentError, Session
from rollout.agent.settings import AgentSettings
from rollout.messages import Heartbeat, InstalledModule, Inventory, NodeProfile, Reason, operating_system

#: Where a node says what it runs: os-release(5).
OS_RELEASES = (Path("/etc/os-release"), Path("/usr/lib/os-release"))

#: What a heartbeat can say of modules that are not ours: `messages.NodeProfile`.
OTHER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
MOST_OTHERS = 64

log = logging.getLogger(__name__)

PLATFORM = f"{platform.system().lower()}/{platform.machine()}"


def read_operating_system(files: Sequence[Path] = OS_RELEASES) -> str:
    """Such as `rhel9`, by the first of the files that can be read; empty if it names none."""
    for file in files:
        try:
            said = dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)
        except (OSError, ValueError):
            continue
        known = operating_system("".join(said.get(name, "").strip("\"' ") for name in ("ID", "VERSION_ID")))
        return "" if known == "linux" else known  # what os-release(5) has for those that do not say
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What the server says of itself; all empty while it cannot be reached. `run_id` names its process."""

    server: str = ""
    version: str = ""
    role: str = ""
    run_id: str = ""
    modules: tuple[LoadedModule, ...] = ()


def observe(session: Session) -> ServerFacts:
    """The server behind `session`, now."""
    info = session.info("server")
    is_valkey = "valkey_version" in info
    return ServerFacts(
        server="valkey" if is_valkey else "redis",
        version=info.get("valkey_version" if is_valkey else "redis_version", ""),
        role="master" if session.info("replication").get("role") == "master" else "replica",
        run_id=info.get("run_id", ""),
        modules=session.modules(),
    )


class Node:
    """The node that `settings` describe. Threads may look at it while one of them works on it."""

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.folder = ModuleStore(settings.modules_dir, settings.server_modules_dir or settings.modules_dir)
        self.server = Server(settings)
        self.journal = Journal(settings.journal_dir)
        self.digests = Digests()
        default = settings.modules_dir / "modfleet.conf"
        self.include = IncludeFile((settings.include_file or default) if settings.persist else None)
        self._operating_system = operating_system(settings.operating_system) or read_operating_system()
        self._last_facts = ServerFacts()
        #: As last seen.
        self._modules: tuple[InstalledModule, ...] = ()
        #: New at each start: with a counter it orders the looks, whatever the clock does.
        self._incarnation = uuid.uuid4().hex
        self._counter = self._sequence = 0
        self._count_lock = threading.Lock()

    def is_current(self, loaded: LoadedModule, run_id: str, module_name: str, version: int) -> bool:
        """Whether the server process `run_id` has in memory what that version's folder holds."""
        if not loaded.path.startswith(f"{self.folder.server_path(module_name, version)}/"):
            return False
        replaced_under = self.folder.replaced_under(module_name, version)
        return not replaced_under or replaced_under != run_id

    def settle(self, module_name: str, version: int) -> None:
        """What was set aside of that version is no longer needed: a start loads what is in its place."""
        if former := self.folder.former(module_name, version):
            self.include.redirect(former, self.folder.server_path(module_name, version))
            self.folder.settle(module_name, version)

    def recover(self, module_name: str, *, unfinished: bool) -> None:
        """The module after a crash. What an `unfinished` operation set aside stays: its repetition decides."""
        for version in self.folder.recover(module_name):
            if not unfinished:
                self.settle(module_name, version)

    def facts(self) -> ServerFacts:
        """The server, now. Raises: `Failure` (server_unreachable)."""
        try:
            with self.server.session() as session:
                self._last_facts = observe(session)
                return self._last_facts
        except RefusedError as error:
            raise Failure(Reason.SERVER_UNREACHABLE, f"The server refuses to be asked: {error}.") from error

    def commands_of(self, module_name: str) -> tuple[str, ...]:
        """Names of the commands that a loaded module has registered; none if the server does not say."""
        try:
            with self.server.session() as session:
                return tuple(session.commands_of(module_name))
        except (Failure, RefusedError):
            return ()

    def inventory(self) -> Inventory:
        """All that is installed, read from the disk and the server now. Raises: `OSError`."""
        look, facts = self._look(), self._facts_or_none()
        return replace(look, modules=self._installed(facts))

    def heartbeat(self, *, hello: bool) -> Heartbeat:
        """What the control plane is told at every interval: of a disk that cannot be read, what was last seen there."""
        look, facts = self._look(), self._facts_or_none()
        try:
            modules = self._installed(facts)
        except OSError as error:
            log.warning("The modules folder cannot be read: %s", error)
            modules = self._modules
        settings = self.settings
        return Heartbeat(
            node=settings.node,
            hello=hello,
            interval_seconds=settings.beat_seconds,
            profile=NodeProfile(
                platform=PLATFORM,
                operating_system=self._operating_system,
                server=facts.server,
                server_version=facts.version[:32],
                role=facts.role,
                api_hosts=settings.api_hosts,
                labels=dict(settings.labels),
                other_modules=self._other_modules(),
            ),
            inventory=replace(look, modules=modules),
            generations=self.journal.generations(),
            sent_at=time.time(),
        )

    def _other_modules(self) -> tuple[str, ...]:
        """Names of what the server has loaded from elsewhere, as last seen: one that is away has not lost them."""
        own = f"{self.settings.server_modules_dir or self.settings.modules_dir}/"
        names = {each.name for each in self._last_facts.modules if not each.path.startswith(own)}
        return tuple(sorted(name for name in names if OTHER_NAME.fullmatch(name)))[:MOST_OTHERS]

    def _installed(self, facts: ServerFacts) -> tuple[InstalledModule, ...]:
        with self.folder.lock:
            versions = tuple(self.folder.versions())
            self._modules = modules = tuple(
                InstalledModule(
                    module_name=name,
                    version=version,
                    content_sha256=self.digests.content(folder),
                    loaded=any(self.is_current(each, facts.run_id, name, version) for each in facts.modules),
                )
                for name, version, folder in versions
            )
            self.digests.forget_others(folder for _, _, folder in versions)
        return modules

    def _facts_or_none(self) -> ServerFacts:
        """The server now; as last seen while it is busy, for that it does not answer is no sign that it unloaded."""
        try:
            return self.facts()
        except ServerSilentError:
            return self._last_facts
        except Failure as failure:
            log.warning("The server's modules are not known: %s", failure)
            return ServerFacts()

    def _look(self) -> Inventory:
        """An empty inventory with the next number, taken before the look itself: whoever looks later sees at least as
        much, and the larger number wins."""
        with self._count_lock:
            self._counter += 1
            self._sequence = max(time.time_ns(), self._sequence + 1)
            return Inventory(sequence=self._sequence, incarnation=self._incarnation, counter=self._counter)
