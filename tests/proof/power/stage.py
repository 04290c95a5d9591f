"""Plays one scenario with the code of the tree it is in, and writes down what clients see."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from modfleet.proof.history import FINAL, RESTARTED, Change, Journal, Way, changes_file, history_file
from tests.fleet import FINAL as ENDED
from tests.fleet import PAUSE, ROLLOUTS, Fleet, remove_folder, running_fleet, short_folder
from tests.proof.clients import Clients, untouched
from tests.proof.dumps import dump
from tests.proof.operator import ROLLOUT_SECONDS, Operator
from tests.proof.packages import MODULES, Packages, configuration, packages_of
from tests.proof.power.topologies import Topology
from tests.proof.topologies import Site
from tests.shards import Machine, Shard
from tests.waiting import wait_for

#: So much more of a client's history says that it has called the servers many times, bytes.
TRAFFIC = 20_000


@dataclass
class Stage(Operator):
    """The operator of a scenario. What it asks for is a change also if it does not end as it should."""

    folder: Path = Path()

    @property
    def fleet(self) -> Fleet:
        return self.site.shard.fleet

    def server(self, name: str) -> Machine:
        return next(each for each in self.site.machines if each.folder.name == name)

    def change(
        self,
        module: str,
        version: int,
        *,
        way: Way = Way.LOAD,
        fails: bool = False,
        servers: Sequence[str] = (),
        **fields: Any,
    ) -> None:
        """Install the version, also by another way than usual, on these servers or all. `fails`: on each of them, so that they
        keep the former version."""
        before = self.loaded.get(module, 0)
        self.packages.provide(module, version)
        names = servers or self.site.servers
        with self._change("change", module, before, version, is_undone=fails, way=way, servers=names):
            nodes = [self.server(each).name for each in names]
            if fails:
                self._fails(self._start("install", module, version, nodes=nodes, **fields))
            else:
                self._carry_out("install", module, version, nodes=nodes, **fields)
        if not fails:
            self.loaded[module] = version
            self._use()

    def _fails(self, uid: str) -> None:
        ends = {*ENDED, "paused"}
        wait_for(lambda: self.fleet.rollout(uid)["phase"] in ends, pause=PAUSE, seconds=ROLLOUT_SECONDS)
        if self.fleet.rollout(uid)["phase"] == "paused":
            self.abort(uid)
        assert "succeeded" not in self.fleet.phases(uid).values(), self.fleet.state(uid)

    def start(self, module: str, version: int, **fields: Any) -> str:
        self.packages.provide(module, version)
        return self._start("install", module, version, **fields)

    def abort(self, uid: str) -> None:
        self.fleet.post(f"{ROLLOUTS}/{uid}/abort")
        self.fleet.end_of(uid)

    @contextmanager
    def _change(
        self,
        action: str,
        module: str,
        before: int,
        after: int,
        *,
        is_undone: bool = False,
        way: Way | None = None,
        servers: Sequence[str] = (),
    ) -> Iterator[None]:
        """What the block does is one change, also if it raises."""
        started = time.monotonic()
        try:
            yield
        finally:
            change = Change(
                uid="",
                action=action,
                started_at=started,
                ended_at=time.monotonic(),
                module=module,
                servers=tuple(servers or self.site.servers),
                way=way or MODULES[module].way,
                before=configuration(before),
                after=configuration(after),
                is_undone=is_undone,
            )
            self.journal.append(change)

    def restarts(self, module: str, before: int, after: int, server: str) -> AbstractContextManager[None]:
        """What the block does is one change of one server."""
        return self._change("change", module, before, after, way=Way.RESTART, servers=[server])

    @contextmanager
    def meanwhile(self, act: Callable[[threading.Event], None]) -> Iterator[None]:
        """While the block runs, another thread acts. It gets what is set at the end of the block."""
        ends, problems = threading.Event(), list[BaseException]()

        def run() -> None:
            try:
                act(ends)
            except BaseException as problem:  # noqa: BLE001 - raised below
                problems.append(problem)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()
        if problems:
            raise problems[0]

    def use_as_soon_as(self, module: str, version: int, server: Machine) -> AbstractContextManager[None]:
        """Clients use the module as soon as this server has it."""

        def use(ends: threading.Event) -> None:
            wait_for(lambda: ends.is_set() or (module, version) in server.loaded())
            self.clients.use([module])

        return self.meanwhile(use)

    def see_traffic(self) -> None:
        """Wait until a client has called the servers many times more."""
        file = history_file(self.folder, "writer-1")
        before = file.stat().st_size
        wait_for(lambda: file.stat().st_size > before + TRAFFIC)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`play`: what the operator does, and what else happens."""

    topology: Topology
    binary: Path
    play: Callable[[Stage], None]

    @property
    def name(self) -> str:
        return self.play.__name__


def perform(scenario: Scenario, folder: Path) -> None:
    """Play the scenario on a fleet of its own. If it does not go on, what was seen until then is in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    root = short_folder()
    with ExitStack() as stack:
        stack.callback(remove_folder, root)
        fleet = stack.enter_context(running_fleet(nodes=0))
        packages: Packages = stack.enter_context(packages_of(fleet))
        control = stack.enter_context(untouched(root / "control", scenario.binary))
        prefix = scenario.name.replace("_", "-")
        site = stack.enter_context(scenario.topology(fleet, prefix, scenario.binary))
        journal = stack.enter_context(Journal(changes_file(folder)))
        clients = Clients(folder, site.path, site.machines, control, seed=1)
        stack.callback(clients.kill)
        try:
            scenario.play(Stage(site, clients, packages, journal, folder=folder))
        finally:
            clients.end()
            dump(folder, FINAL, site, control)
            started = [each for each in site.machines if _restarts(each)]
            control.restart()
            dump(folder, RESTARTED, Site(Shard(fleet, started), site.path, site.modules), control)


def _restarts(machine: Machine) -> bool:
    try:
        machine.restart()
    except (AssertionError, redis.TimeoutError):
        return False
    return True
