"""Nodes that play what a script says: they work, fail, hang, die, fall silent, and answer from a journal."""

from collections import deque
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from rollout.domain.topology.servers import replication_of
from rollout.messages import Action, Activation, Phase, Reason, Replication, Report
from rollout.readiness import what_changed, why_not_ready

if TYPE_CHECKING:
    from tests.simulation.nodes import Nodes

WORK = (Phase.FETCHING, Phase.VERIFYING, Phase.INSTALLING, Phase.LOADING, Phase.PROBING, Phase.SETTLING)


class Deed(StrEnum):
    """`HANG` never ends by itself, `LATE` ends after its deadline, `DIE` stops the agent for `seconds` while it works,
    and the command with it."""

    END = "end"
    HANG = "hang"
    LATE = "late"
    DIE = "die"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What becomes of one command on one node. `said`: phases reported on the way. `checks_at`: the share of the seconds
    after which the agent checks its server, before it changes it."""

    deed: Deed = Deed.END
    seconds: float = 5.0
    phase: Phase = Phase.SUCCEEDED
    reason: Reason | None = None
    said: tuple[Phase, ...] = (Phase.FETCHING, Phase.LOADING)
    obeys_cancel: bool = True
    checks_at: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A command as it travels. The agent drops it if it arrives after `expires`. `ignored`: the replicas that people had
    accepted at the release."""

    rollout: str
    node: str
    module_name: str
    version: int
    action: Action
    activation: Activation
    content_sha256: str
    generation: int
    attempt: int
    undoes: int | None
    deadline_seconds: float
    sent_at: datetime = field(compare=False)
    expires: datetime = field(compare=False)
    release: int = 0
    released_at: datetime = field(compare=False)
    ignored: frozenset[str] = field(compare=False)
    expects: Replication | None = field(default=None, compare=False)

    @property
    def number(self) -> tuple[int, int]:
        return self.generation, self.attempt

    @property
    def changes_server(self) -> bool:
        is_loading = self.action == Action.INSTALL and self.activation == Activation.LOAD
        return is_loading or self.action == Action.REMOVE or self.undoes is not None

    def is_same(self, other: "Order | None") -> bool:
        """Return True if the other is a release of the same attempt."""
        return other is not None and (self.rollout, *self.number) == (other.rollout, *other.number)


#: Digest, and whether it is loaded, by module and version.
Disk = dict[tuple[str, int], tuple[str, bool]]


@dataclass(slots=True)
class Entry:
    order: Order
    report: Report | None = None

    @property
    def is_returned(self) -> bool:
        return self.report is not None and self.report.phase == Phase.SCHEDULED


class Agent:
    """`alive`: the process runs; `reachable`: what it sends and is sent arrives. `queued`: what the broker keeps for it.
    `changing`: the command for which it changes its server now. `disk` has a digest and whether it is loaded for each
    module version; `spoiled` are those that were changed by hand. `had`: what was there of the module when the node first
    began to work on an operation of the rollout."""

    def __init__(self, world: "Nodes", name: str, disk: Disk | None = None) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.reachable = True
        self.queued: list[Order] = []
        self.changing: Order | None = None
        self.silent_since: datetime | None = None
        #: When it sends its heartbeats, in each interval, seconds.
        self.beats_at = len(world.agents) * 3.7 % 10
        self.journal: dict[str, Entry] = {}
        self.queue: deque[Order] = deque()
        self.working: Order | None = None
        self.script: Script | None = None
        self.run = 0
        self.disk: Disk = dict(disk or {})
        self.spoiled: set[tuple[str, int]] = set()
        self.is_spoiled = False
        self.had: dict[str, dict[int, tuple[str, bool]]] = {}

    @property
    def is_heard(self) -> bool:
        return self.alive and self.reachable

    # --- What it is told

    def hear(self, order: Order) -> None:
        if not self.is_heard:
            self.queued.append(order)
            return
        if order != self.working and order not in self.queue:
            self.queue.append(order)
            self._next()

    def hear_cancel(self, order: Order) -> None:
        if not self.is_heard:
            return
        if self.working is not None and order.is_same(self.working):
            assert self.script
            if self.script.obeys_cancel:
                self._end(self.working, Phase.CANCELED, Reason.MANUAL)
            return
        self.queue = deque(each for each in self.queue if not order.is_same(each))
        entry = self.journal.get(order.module_name)
        if entry is None or entry.order.number < order.number or (order.is_same(entry.order) and entry.is_returned):
            self.journal[order.module_name] = Entry(order)
            self._end(order, Phase.CANCELED, Reason.MANUAL)
        elif order.is_same(entry.order) and entry.report is not None:
            self._answer_again(entry.report, order)

    def _next(self) -> None:
        while self.alive and self.working is None and self.queue:
            order = self.queue.popleft()
            entry = self.journal.get(order.module_name)
            if order.expires < self.world.now:
                continue
            if entry is not None and order.is_same(entry.order):
                if entry.report is None or (entry.is_returned and order.release > entry.report.release):
                    self._begin(order)
                else:
                    self._answer_again(entry.report, order)
            elif entry is not None and entry.order.number >= order.number:
                self.world.carry_report(_report(order, Phase.FAILED, Reason.STALE_GENERATION))
            else:
                self._begin(order)

    def _answer_again(self, report: Report, order: Order) -> None:
        release = max(report.release, order.release) if report.phase.is_final else report.release
        self.world.carry_report(replace(report, release=release))

    # --- What it does

    def _begin(self, order: Order) -> None:
        self.journal[order.module_name] = Entry(order)
        self.had.setdefault(order.rollout, self.versions(order.module_name))
        self.working, self.run = order, self.run + 1
        self.script = script = self.world.script_of(order)
        if order.changes_server:
            checks_at = script.checks_at * min(script.seconds, order.deadline_seconds)
            self.world.after(checks_at, self._check, self.run, order)
        for number, phase in enumerate(script.said, start=1):
            self.world.after(script.seconds * number / (len(script.said) + 1), self._say, self.run, order, phase)
        match script.deed:
            case Deed.END:
                self.world.after(script.seconds, self._finish, self.run, order, script.phase, script.reason)
            case Deed.LATE:
                late = order.deadline_seconds + script.seconds
                self.world.after(late, self._finish, self.run, order, script.phase, script.reason)
            case Deed.HANG:
                self.world.after(order.deadline_seconds + script.seconds, self._give_up, self.run)
            case Deed.DIE:
                self.world.after(0.2, self._die, self.run, script.seconds)

    def _check(self, run: int, order: Order) -> None:
        """Return the operation if its server has changed since the release, or is not ready. Else begin to change it."""
        if run != self.run or order != self.working:
            return
        state = self.world.servers.state(self.name)
        changed = what_changed(order.expects, replication_of(state)) if order.expects is not None else ""
        wait = (Reason.ROLE_CHANGED, changed) if changed else why_not_ready(state)
        if wait is not None:
            self._end(order, Phase.SCHEDULED, *wait)
            return
        if self.target(order) != self.loaded(order.module_name):
            self.world.rules.begins_to_change(self, order)
            self.changing = order

    def _say(self, run: int, order: Order, phase: Phase) -> None:
        if run == self.run and order == self.working:
            self.world.carry_report(_report(order, phase))

    def _finish(self, run: int, order: Order, phase: Phase, reason: Reason | None) -> None:
        if run == self.run and order == self.working:
            self._end(order, phase, reason)

    def _give_up(self, run: int) -> None:
        if run == self.run:
            self.working = self.changing = None
            self._next()

    def _die(self, run: int, seconds: float) -> None:
        if run == self.run and self.alive:
            self.world.kill(self.name, seconds)

    def _end(self, order: Order, phase: Phase, reason: Reason | None, message: str = "") -> None:
        former = dict(self.disk)
        if phase in {Phase.SUCCEEDED, Phase.SKIPPED}:
            self._change(order)
        if phase == Phase.SKIPPED and self.disk != former:
            phase = Phase.SUCCEEDED  # what is not there already cannot be skipped
        report = replace(
            _report(order, phase, reason),
            message=message,
            seconds=1.0 if phase == Phase.SUCCEEDED else None,
            inventory=self.world.inventory_of(self.name) if phase.is_final else None,
        )
        self.journal[order.module_name].report = report
        if order.is_same(self.working):
            self.working, self.changing, self.run = None, None, self.run + 1
        self.world.carry_report(report)
        self._next()

    def versions(self, module_name: str) -> dict[int, tuple[str, bool]]:
        """Digest, and whether it is loaded, by version."""
        return {version: found for (name, version), found in self.disk.items() if name == module_name}

    def loaded(self, module_name: str) -> int | None:
        """Return the version that its server has loaded."""
        return next((version for version, (_, loaded) in self.versions(module_name).items() if loaded), None)

    def target(self, order: Order) -> int | None:
        """Return the version that its server has loaded after the operation."""
        now = self.loaded(order.module_name)
        if order.action == Action.INSTALL and order.activation == Activation.LOAD:
            return order.version
        leaving = order.version if order.action == Action.REMOVE else order.undoes
        return None if now == leaving else now

    def spoil(self, module_name: str, version: int) -> None:
        """Somebody deletes its files."""
        self.disk.pop((module_name, version), None)
        self.spoiled.add((module_name, version))
        self.is_spoiled = True

    def _change(self, order: Order) -> None:
        name = order.module_name
        self.spoiled.discard((name, order.version))
        if order.undoes is not None:
            self.disk.pop((name, order.undoes), None)
        if order.action == Action.REMOVE:
            self.disk.pop((name, order.version), None)
            return
        is_loaded = order.activation == Activation.LOAD
        if (name, order.version) in self.disk:
            is_loaded |= self.disk[name, order.version][1]
        if is_loaded:
            self.disk = {key: (sha, loaded and key[0] != name) for key, (sha, loaded) in self.disk.items()}
        self.disk[name, order.version] = (order.content_sha256, is_loaded)

    # --- What happens to it

    def stop(self) -> None:
        """Its process is gone, and what it had in memory."""
        self.alive, self.working, self.changing, self.run = False, None, None, self.run + 1
        self.queue.clear()

    def start(self) -> None:
        self.alive = self.reachable = True
        self.queue.extend(self.queued)
        self.queued.clear()
        self._next()


def _report(order: Order, phase: Phase, reason: Reason | None = None) -> Report:
    return Report(
        rollout=order.rollout,
        node=order.node,
        module_name=order.module_name,
        generation=order.generation,
        attempt=order.attempt,
        phase=phase,
        reason=reason,
        release=order.release,
    )
