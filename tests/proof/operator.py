"""The operator of a proof: asks for changes, waits for their end, and writes down both."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from modfleet.proof.history import Change, Journal, Way
from tests.fleet import FINAL, PAUSE, ROLLOUTS
from tests.proof.clients import Clients
from tests.proof.faults import Faults
from tests.proof.go_on import Attempt, go_on
from tests.proof.packages import MODULES, Packages, configuration
from tests.proof.topologies import Site
from tests.shards import Machine
from tests.waiting import PATIENCE, wait_for

#: The longest time for one rollout, seconds.
ROLLOUT_SECONDS = 4 * PATIENCE
#: Limits that a shared machine does not reach. An operator would choose them for the slowest server.
STRATEGY = {"node_deadline_seconds": ROLLOUT_SECONDS, "progress_deadline_seconds": ROLLOUT_SECONDS}


@dataclass
class Operator:
    """Changes one site. `loaded`: the version of each module that its servers have."""

    site: Site
    clients: Clients
    packages: Packages
    journal: Journal
    loaded: dict[str, int] = field(default_factory=dict)
    #: What hurts the site meanwhile. The operator then tries again what has failed.
    faults: Faults | None = None
    #: The failed attempts of the change in progress.
    attempts: list[Attempt] = field(default_factory=list)
    #: The newest rollout that installed or upgraded the module, and the version before it.
    undoable: dict[str, tuple[str, int]] = field(default_factory=dict)

    def install(self, module: str, version: int) -> None:
        """Install or upgrade the module on each server."""
        before = self.loaded.get(module, 0)
        self.packages.provide(module, version)
        with self._change("upgrade" if before else "install", module, before, version):
            uid = self._carry_out("install", module, version)
        self.loaded[module], self.undoable[module] = version, (uid, before)
        self._use()

    def fail(self, module: str, version: int, server: Machine) -> None:
        """Ask for an upgrade that one server's probe refuses. All servers keep the former version."""
        before = self.loaded[module]
        self.packages.provide(module, version)
        flag = server.folder / f"less-{version}"
        flag.touch()
        with self._change("failed upgrade", module, before, version, is_undone=True):
            uid = self._start("install", module, version, strategy={"on_failure": "rollback"})
            self._ends(uid, "rolled_back", lambda: self._start("install", module, before))
        flag.unlink()

    def roll_back(self, module: str) -> None:
        """Roll back the newest upgrade."""
        uid, former = self.undoable.pop(module)
        with self._change("rollback", module, self.loaded[module], former):
            uid = self.site.shard.fleet.post(f"{ROLLOUTS}/{uid}/rollback")["uid"]
            self._ends(uid, "rolled_back", lambda: self._start("install", module, former))
        self.loaded[module] = former

    def remove(self, module: str) -> None:
        """Remove the module from each server. No client uses it from the begin on."""
        before = self.loaded.pop(module)
        self.undoable.pop(module, None)
        self._use()
        with self._change("removal", module, before, 0):
            self._carry_out("remove", module, before, even_if_used=True)

    def rewrite(self, server: Machine) -> None:
        """Call CONFIG REWRITE, as a person or a Sentinel does."""
        with self._change("config rewrite", "", 0, 0):
            server.call("CONFIG", "REWRITE")

    def _use(self) -> None:
        self.clients.use(sorted(self.loaded))

    def _start(self, action: str, module: str, version: int, **fields: Any) -> str:
        strategy = {**STRATEGY, **fields.pop("strategy", {})}
        return self.site.shard.start(action, module, version, strategy=strategy, may_interrupt=True, **fields)

    def _carry_out(self, action: str, module: str, version: int, **fields: Any) -> str:
        """Return the uid of the rollout that has succeeded."""
        start = partial(self._start, action, module, version, **fields)
        return self._ends(start(), "succeeded", start)

    def _ends(self, uid: str, phase: str, again: Callable[[], str]) -> str:
        """Wait until the rollout has ended in this phase. Return its uid, or that of the one that took its place."""
        fleet = self.site.shard.fleet
        if self.faults:
            ending = go_on(fleet, uid, expected=phase, again=again, seconds=ROLLOUT_SECONDS)
            self.attempts.extend(ending.attempts)
            return ending.uid
        ends = {*FINAL, "paused"}  # a person would have to resume it
        wait_for(
            lambda: fleet.rollout(uid)["phase"] in ends,
            pause=PAUSE,
            seconds=ROLLOUT_SECONDS,
            state=lambda: fleet.state(uid),
        )
        assert fleet.rollout(uid)["phase"] == phase, fleet.state(uid)
        # A rollout succeeds although nodes were skipped; then this operator would not have what he asked for.
        assert "skipped" not in fleet.phases(uid).values(), fleet.state(uid)
        return uid

    @contextmanager
    def _change(self, action: str, module: str, before: int, after: int, *, is_undone: bool = False) -> Iterator[None]:
        """What the block does is one change. At a server where an attempt has failed, or that was killed, it is several."""
        started = time.monotonic()
        self.attempts.clear()
        yield
        ended = time.monotonic()
        for server in self.site.servers:
            *failed, last = self._parts(server, started, ended)
            for start, end in failed:
                self._append(f"interrupted {action}", module, before, after, (server,), start, end, is_undone=True)
            if failed:
                self._append(f"repeated {action}", module, before, after, (server,), *last, is_undone=is_undone)
        others = tuple(each for each in self.site.servers if len(self._parts(each, started, ended)) == 1)
        self._append(action, module, before, after, others, started, ended, is_undone=is_undone)

    def _parts(self, server: str, started: float, ended: float) -> list[tuple[float, float]]:
        """The times between which the server went from one state to the other."""
        prefix = self.site.machines[0].name.removesuffix(self.site.servers[0])
        cuts = [each.ended_at for each in self.attempts if f"{prefix}{server}" in each.nodes]
        cuts += [
            at for at, name in (self.faults.kills if self.faults else ()) if name == server and started < at < ended
        ]
        return list(pairwise([started, *sorted(cuts), ended]))

    def _append(
        self,
        action: str,
        module: str,
        before: int,
        after: int,
        servers: tuple[str, ...],
        started: float,
        ended: float,
        *,
        is_undone: bool,
    ) -> None:
        self.journal.append(
            Change(
                uid="",
                action=action,
                started_at=started,
                ended_at=ended,
                module=module,
                servers=servers,
                way=MODULES[module].way if module else Way.LOAD,
                before=configuration(before),
                after=configuration(after),
                is_undone=is_undone,
            )
        )
