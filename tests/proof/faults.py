"""Faults during a proof, in an order that a seed chooses: processes die, connections break, disks are full, clocks are wrong.

One fault lasts at a time. It is written down as a change, which ends when all is as before: the server serves, and is in step; the
control plane has heard of the nodes. A fault that clients may notice is marked as one; for all others the rules stay as strict as
without.
"""

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Self

import redis

from modfleet.proof.history import Change, Journal
from rollout.agent.restart.held import HeldFile
from tests.fleet import PAUSE, Fleet
from tests.proof.clocks import Clock
from tests.proof.proxy import Link
from tests.proof.rig import Parts, Rig
from tests.shards import Machine
from tests.waiting import wait_for

#: How often each fault is chosen.
CONTROL_PLANE: Mapping[str, int] = {
    "kill worker": 2,
    "kill relay": 2,
    "kill broker": 2,
    "kill api": 2,
    "set control clock": 1,
}
AGENT: Mapping[str, int] = {"kill agent": 4, "cut agent": 2, "stall agent": 1, "set agent clock": 1}
REPLICATION: Mapping[str, int] = {"cut replicas": 2, "stall replicas": 1, "slow replicas": 1}
SERVER: Mapping[str, int] = {"cut": 2, "stall": 1, "slow": 1, "fill disk": 3, "set server clock": 1}
#: For servers that have another copy of their data.
KILLS: Mapping[str, int] = {"kill server": 4, "kill unsaved": 1}
FAULTS: Mapping[str, int] = {**CONTROL_PLANE, **AGENT, **REPLICATION, **SERVER, **KILLS}
#: Those that clients of the servers may notice. A full disk is one of them only if the server saves meanwhile.
NOTICED = {"cut", "stall", "slow", "set server clock", *KILLS}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A fault that was drawn. It does not depend on what happens in the run."""

    kind: str
    #: The time before it, and how long it lasts, seconds.
    pause: float
    seconds: float
    #: Which machine: 0 is the first, almost 1 the last.
    place: float
    #: By how much a clock is ahead, hours.
    hours: float
    #: True if a server saves while its disk is full, or is killed by SIGKILL although SIGTERM would do.
    is_hard: bool


@dataclass(kw_only=True)
class Fault:
    """A fault that lasts. `is_noticed`: clients may notice it."""

    is_noticed: bool


def kinds_for(*, is_replicated: bool) -> Mapping[str, int]:
    """Return the faults of a topology. Only a server that has a copy is killed."""
    return {kind: FAULTS[kind] for kind in FAULTS if is_replicated or kind not in {*KILLS, *REPLICATION}}


def plans(random: Random, kinds: Mapping[str, int] = FAULTS) -> Iterator[Plan]:
    while True:
        yield Plan(
            kind=random.choices(list(kinds), list(kinds.values()))[0],
            pause=random.uniform(1, 6),
            seconds=random.uniform(1, 5),
            place=random.random(),
            hours=random.choice([-1, 1]) * random.uniform(1, 72),
            is_hard=random.random() < 0.5,
        )


class Faults:
    """From the start of the block to its end. The machines are on the rig."""

    def __init__(
        self,
        random: Random,
        fleet: Fleet,
        machines: Sequence[Machine],
        *,
        is_replicated: bool,
        journal: Journal,
        rig: Rig,
    ) -> None:
        self._plans = plans(random, kinds_for(is_replicated=is_replicated))
        self._fleet, self._machines, self._journal, self._rig = fleet, machines, journal, rig
        #: When which server was killed, by the monotonic clock. It may then start with what it had before a change in progress.
        self.kills: list[tuple[float, str]] = []
        self._ends = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="faults")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End after the fault that lasts. All is healed then. Raises what a fault has raised."""
        self._ends.set()
        self._thread.join()
        if error := self._error:
            self._error = None
            raise error

    def _run(self) -> None:
        try:
            for plan in self._plans:
                if self._ends.wait(plan.pause):
                    return
                self.carry_out(plan)
        except BaseException as error:  # noqa: BLE001 - `stop` raises it
            self._error = error
        finally:
            self._rig.heal(self._machines)

    def carry_out(self, plan: Plan) -> bool:
        """Return False if there is no server now to which this can be done."""
        machine = self._machines[int(plan.place * len(self._machines))]
        parts = self._rig.parts[machine.name]
        match plan.kind.split():
            case ["kill", "agent"]:
                self._kill_agent(machine)
            case ["kill", "server"]:
                return self._kill_server(machine, is_hard=plan.is_hard)
            case ["kill", "unsaved"]:
                return self._kill_unsaved(machine)
            case ["kill", process]:
                self._kill(process)
            case ["set", "control", "clock"]:
                self._set_control_clock(plan)
            case ["set", who, "clock"]:
                self._set_clock(who, machine, parts, plan)
            case ["fill", "disk"]:
                self._fill_disk(machine, parts, plan)
            case [how, "agent"]:
                with self._fault(plan.kind, machine):
                    self._hurt([parts.broker, parts.api], how, plan)
                    self._wait_until_heard(machine)
            case [how, *who]:
                with self._fault(plan.kind, machine):
                    self._hurt([parts.server], how, plan, replicas_only=who == ["replicas"])
                    self._wait_until_in_step()
        return True

    # --- Processes ----------------------------------------------------------------------------------------------------

    def _kill_agent(self, machine: Machine) -> None:
        """If it dies during a failover, the master may stay paused until the agent is back (docs/howto/restarts.md)."""
        with self._fault("kill agent", machine) as fault:
            machine.leave()
            held = HeldFile(machine.folder / "journal").read()
            fault.is_noticed = bool(held and held.failover and not held.failed_over)
            machine.join(self._fleet)
            self._wait_until_heard(machine)

    def _kill(self, process: str) -> None:
        with self._rig.control, self._fault(f"kill {process}"):
            self._fleet.up.kill(process)
            self._wait_until_heard(*self._machines)

    def _kill_server(self, machine: Machine, *, is_hard: bool) -> bool:
        """A replica dies by SIGKILL or SIGTERM. A master has to save first, so that it dies by SIGTERM only."""
        try:
            is_master = machine.master_port() == 0
            if is_master and not (self._saves(machine) and self._has_replica_online(machine)):
                return False
        except redis.RedisError:  # it is being restarted
            return False
        number = signal.SIGKILL if is_hard and not is_master else signal.SIGTERM
        with self._fault("kill server", machine):
            self._die(machine, number)
            self._wait_until_in_step()
        return True

    def _kill_unsaved(self, machine: Machine) -> bool:
        """A master dies by SIGKILL. It loses what it has not saved since a moment ago, and its replicas lose the same."""
        try:
            if machine.master_port() or not self._saves(machine):
                return False
        except redis.RedisError:
            return False
        with self._fault("kill unsaved", machine):
            wait_for(lambda: self._save(machine) == "ok", pause=PAUSE)  # clients notice that too
            self._die(machine, signal.SIGKILL)
            self._wait_until_in_step()
        return True

    def _die(self, machine: Machine, number: int) -> None:
        self.kills.append((time.monotonic(), machine.folder.name))
        machine.die(number)

    def _saves(self, machine: Machine) -> bool:
        return bool(machine.call("CONFIG", "GET", "save")[1])

    def _has_replica_online(self, machine: Machine) -> bool:
        found = machine.info("replication")
        return any(found[f"slave{number}"]["state"] == "online" for number in range(found["connected_slaves"]))

    # --- Connections, disks, clocks -----------------------------------------------------------------------------------

    def _hurt(self, links: Sequence[Link], how: str, plan: Plan, *, replicas_only: bool = False) -> None:
        for link in links:
            match how:
                case "cut":
                    link.cut(replicas_only=replicas_only)
                case "stall":
                    link.stall(replicas_only=replicas_only)
                case _:
                    link.slow(0.05, 1e6, replicas_only=replicas_only)
        self._ends.wait(plan.seconds)
        for link in links:
            link.heal()

    def _fill_disk(self, machine: Machine, parts: Parts, plan: Plan) -> None:
        with self._fault("fill disk", machine, is_noticed=plan.is_hard):
            parts.disk.fill()
            if plan.is_hard:
                self._save(machine)
            self._ends.wait(plan.seconds)
            parts.disk.free()
            if plan.is_hard:  # a server whose last save has failed refuses writes
                wait_for(lambda: self._save(machine) == "ok", pause=PAUSE)
            self._wait_until_heard(machine)
            self._wait_until_in_step()

    def _save(self, machine: Machine) -> str:
        """Return if the newest save was `ok`."""
        try:
            machine.call("SAVE")
        except redis.RedisError:  # it cannot, or it does so already, or it is being restarted
            return "err"
        return str(machine.info("persistence")["rdb_last_bgsave_status"])

    def _set_clock(self, who: str, machine: Machine, parts: Parts, plan: Plan) -> None:
        clock = parts.agent_clock if who == "agent" else parts.server_clock
        with self._fault(plan.kind, machine):
            self._jump(clock, plan, machine)

    def _set_control_clock(self, plan: Plan) -> None:
        with self._rig.control, self._fault(plan.kind):
            self._jump(self._rig.control_clock, plan, *self._machines)

    def _jump(self, clock: Clock, plan: Plan, *machines: Machine) -> None:
        clock.set(plan.hours * 3600)
        self._ends.wait(plan.seconds)
        clock.set(0)
        self._wait_until_heard(*machines)
        self._wait_until_in_step()

    # --- What is written down, and its end ----------------------------------------------------------------------------

    @contextmanager
    def _fault(self, kind: str, *machines: Machine, is_noticed: bool = False) -> Iterator[Fault]:
        started = time.monotonic()
        fault = Fault(is_noticed=is_noticed or kind in NOTICED)
        yield fault
        self._journal.append(
            Change(
                uid="",
                action=kind,
                started_at=started,
                ended_at=time.monotonic(),
                servers=tuple(each.folder.name for each in machines),
                is_fault=fault.is_noticed,
            )
        )

    def _wait_until_heard(self, *machines: Machine) -> None:
        """The control plane has recorded a heartbeat of each that it had not recorded before."""
        before = self._last_seen()
        names = {each.name for each in machines}
        wait_for(
            lambda: all(seen != before.get(name) for name, seen in self._last_seen().items() if name in names),
            pause=PAUSE,
        )

    def _last_seen(self) -> dict[str, Any]:
        found = self._fleet.get("/v2/nodes", params={"limit": 1000})["results"]
        return {each["name"]: each["last_seen"] for each in found}

    def _wait_until_in_step(self) -> None:
        """Each server serves, and each replica has what its master has now."""
        wait_for(self._serve, pause=PAUSE)
        masters = {each.port: each for each in self._machines}
        for each in self._machines:
            wait_for(partial(self._has_followed, each, masters), pause=PAUSE)

    def _serve(self) -> bool:
        try:
            return all(each.answers() for each in self._machines)
        except redis.RedisError:
            return False

    def _has_followed(self, machine: Machine, masters: Mapping[int, Machine]) -> bool:
        """Clients write all the time, so the two offsets are rarely equal."""
        try:
            if not (port := machine.master_port()):
                return True
            offset = masters[port].info("replication")["master_repl_offset"]
            wait_for(lambda: machine.info("replication").get("slave_repl_offset", 0) >= offset, seconds=2)
            return bool(machine.info("replication").get("master_link_status") == "up")
        except (redis.RedisError, AssertionError):
            return False
