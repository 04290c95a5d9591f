"""One run of a proof: changes on one topology while clients record, then the dumps, and the checker."""

import shutil
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import msgspec

from modfleet.proof.certificate import Facts, Head, Run, count_retries, digests
from modfleet.proof.checker import Limits, check
from modfleet.proof.history import FINAL, RESTARTED, Journal, changes_file, read_changes
from tests.fleet import remove_folder, short_folder
from tests.integration.agent.conftest import VALKEY
from tests.proof.clients import WRITERS, Clients, untouched
from tests.proof.dumps import dump
from tests.proof.faults import Faults
from tests.proof.operator import Operator
from tests.proof.packages import Packages
from tests.proof.rig import Rig
from tests.proof.schedule import UPGRADES, Schedule
from tests.proof.tally import Tally
from tests.proof.topologies import TOPOLOGIES, Site
from tests.shards import Machine
from tests.topologies import as_it_is

REDIS = Path(shutil.which("redis-server") or "redis-server")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What to prove. The changes go on until there were so many upgrades and calls, or until `seconds` have passed."""

    topology: str
    seed: int
    upgrades: int = UPGRADES
    calls: int = 0
    seconds: float
    limits: Limits = field(default_factory=Limits)
    #: With it, the parts are hurt while the operator works.
    rig: Rig | None = None

    @property
    def binary(self) -> Path:
        """Two topologies have Valkey, the others Redis."""
        order = Random(f"{self.seed} server").sample([*TOPOLOGIES], len(TOPOLOGIES))
        return VALKEY if order.index(self.topology) < len(order) / 2 else REDIS

    def _random(self, what: str) -> Random:
        return Random(f"{self.seed} {self.topology} {what}")

    @property
    def title(self) -> str:
        return f"{self.topology}, with faults" if self.rig else self.topology

    def prove(self, packages: Packages, folder: Path) -> Run:
        """Record everything in the folder, and return what the checker says of it."""
        folder.mkdir(parents=True)
        with ExitStack() as stack:
            root = short_folder()
            stack.callback(remove_folder, root)
            control = stack.enter_context(untouched(root / "control", self.binary))
            prefix = f"{self.topology}-{self.seed}"
            prepare = partial(self.rig.prepare, packages.fleet) if self.rig else as_it_is
            site = stack.enter_context(TOPOLOGIES[self.topology](packages.fleet, prefix, self.binary, (), prepare))
            journal = stack.enter_context(Journal(changes_file(folder)))
            clients = Clients(folder, site.path, site.machines, control, self.seed)
            stack.callback(clients.kill)
            faults = self._faults(site, journal)
            schedule = Schedule(Operator(site, clients, packages, journal, faults=faults), self._random("changes"))
            schedule.begin()
            with faults or nullcontext():
                self._change(schedule, Tally(folder))
            clients.end()
            dump(folder, FINAL, site, control)
            for each in (*site.machines, control):
                each.restart()
            dump(folder, RESTARTED, site, control)
            facts = self._facts(folder, site)
        return Run(self.title, check(folder, self.limits), facts)

    def _facts(self, folder: Path, site: Site) -> Facts:
        masters = sum(each.master_port() == 0 for each in site.machines)
        return Facts(
            topology=f"masters: {masters}, replicas: {len(site.machines) - masters}",
            servers={each.folder.name: _release(each) for each in site.machines},
            modules=_versions(folder),
            seed=self.seed,
            clients=WRITERS,
            retries=count_retries(folder),
            log_head=msgspec.convert(site.shard.fleet.get("/v2/events/head"), Head),
            files=digests(folder),
            command=f"python -m modfleet.proof {folder}",
        )

    def _faults(self, site: Site, journal: Journal) -> Faults | None:
        if self.rig is None:
            return None
        is_replicated = len(site.machines) > 1
        random = self._random("faults")
        return Faults(
            random, site.shard.fleet, site.machines, is_replicated=is_replicated, journal=journal, rig=self.rig
        )

    def _change(self, schedule: Schedule, tally: Tally) -> None:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and (schedule.upgrades < self.upgrades or tally.calls() < self.calls):
            schedule.step()


def _release(machine: Machine) -> str:
    info = machine.info("server")
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"


def _versions(folder: Path) -> dict[str, list[str]]:
    """The configurations that each module went through, in their order."""
    found: dict[str, list[str]] = {}
    for each in sorted(read_changes(folder), key=lambda each: each.ended_at):
        if each.module and not each.is_undone:
            versions = found.setdefault(each.module, [])
            versions += [each.after or "removed"] if versions[-1:] != [each.after or "removed"] else []
    return found
