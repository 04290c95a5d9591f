"""Each fault of a proof once, on a real shard with clients, and what the checker says to it."""

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from modfleet.proof.checker import Limits, Verdict, check
from modfleet.proof.history import FINAL, RESTARTED, Journal, changes_file
from tests.fleet import remove_folder, running_fleet, short_folder
from tests.proof import disk
from tests.proof.clients import Clients, untouched
from tests.proof.dumps import dump
from tests.proof.faults import FAULTS, Faults, Plan
from tests.proof.operator import Operator
from tests.proof.packages import packages_of
from tests.proof.patience import patient
from tests.proof.rig import on_rig
from tests.proof.topologies import replicas

REDIS = Path(shutil.which("redis-server") or "redis-server")
#: The server at which a fault is carried out: 0 is the master, 0.9 a replica.
PLACES = {"kill unsaved": 0.0, "kill server": 0.9}


@pytest.mark.full
@pytest.mark.timeout(600)
def test_each_fault_once():
    """In a process with mounts of its own: see `disk.enter`."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=disk.enter) as pool:
        verdict = pool.submit(each_fault_once).result()
    assert [f"{each.rule}: {each.message}" for each in verdict.violations] == []
    assert verdict.changes == {"install": 1, "upgrade": 1, **dict.fromkeys(FAULTS, 1)}


def each_fault_once() -> Verdict:
    with ExitStack() as stack:
        root = short_folder()
        stack.callback(remove_folder, root)
        rig = stack.enter_context(on_rig(root))
        fleet = stack.enter_context(running_fleet(nodes=0, environ=dict(rig.control_clock.environ)))
        fleet.api = stack.enter_context(patient(fleet))
        packages = stack.enter_context(packages_of(fleet))
        control = stack.enter_context(untouched(root / "control", REDIS))
        site = stack.enter_context(replicas(fleet, "faults", REDIS, (), lambda each: rig.prepare(fleet, each)))
        journal = stack.enter_context(Journal(changes_file(root)))
        clients = Clients(root, site.path, site.machines, control, 1)
        stack.callback(clients.kill)
        faults = Faults(Random(1), fleet, site.machines, is_replicated=True, journal=journal, rig=rig)
        operator = Operator(site, clients, packages, journal, faults=faults)
        operator.install("writes", 1)
        for kind in FAULTS:
            plan = Plan(kind=kind, pause=0.0, seconds=1.0, place=PLACES.get(kind, 0.0), hours=5.0, is_hard=True)
            assert faults.carry_out(plan), kind
        operator.install("writes", 2)
        clients.end()
        dump(root, FINAL, site, control)
        for each in (*site.machines, control):
            each.restart()
        dump(root, RESTARTED, site, control)
        return check(root, Limits())
