"""Nodes that play what a script says: they work, fail, hang, die, fall silent, and answer from a journal."""

from collections import deque
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from rollout.domain.placement.outcomes import NOT_POSSIBLE
from rollout.domain.topology.servers import replication_of
from rollout.messages import Action, Activation, Phase, Reason, Report
from rollout.readiness import Wait, what_changed, why_not_ready
from tests.simulation.orders import Deed, Disk, Entry, Held, Order, Script, report_of
from tests.simulation.restarts import Restarts

if TYPE_CHECKING:
    from tests.simulation.nodes import Nodes


class Agent(Restarts):
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
        self.held: Held | None = None

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
            if self.script.obeys_cancel and not self.is_committed(order):
                self._end(self.working, Phase.CANCELED, Reason.MANUAL)
            return
        self.queue = deque(each for each in self.queue if not order.is_same(each))
        entry = self.journal.get(order.module_name)
        if entry is None or entry.order.number < order.number or (order.is_same(entry.order) and entry.is_returned):
            self.journal[order.module_name] = Entry(order)
            self._end(order, Phase.CANCELED, Reason.MANUAL)
        elif order.is_same(entry.order) and entry.report is not None:
            self._answer_again(entry.report, order)
        elif self.holds_for(order):  # the agent was killed
            if self.is_committed(order):
                self._begin(order)
            else:
                self._end(order, Phase.CANCELED, Reason.MANUAL)

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
                self.world.carry_report(report_of(order, Phase.FAILED, Reason.STALE_GENERATION))
            else:
                self._begin(order)

    def _answer_again(self, report: Report, order: Order) -> None:
        release = max(report.release, order.release) if report.phase.is_final else report.release
        self.world.carry_report(replace(report, release=release))

    # --- What it does

    def _begin(self, order: Order) -> None:
        entry = self.journal.get(order.module_name)
        is_resumed = entry is not None and entry.report is None and entry.order.generation == order.generation
        self.journal[order.module_name] = Entry(order)
        self.had.setdefault(order.rollout, self.versions(order.module_name))
        self.working, self.run = order, self.run + 1
        self.script = script = self.world.script_of(order)
        if script.deed == Deed.DIE:
            self.world.after(script.dies_at, self._die, self.run, script.seconds)
        if self.restarts(order):
            self.begin_restart(order, script, is_resumed=is_resumed)
            return
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

    def _check(self, run: int, order: Order) -> None:
        """Return the operation if its server has changed since the release, or is not ready. Else begin to change it."""
        if run != self.run or order != self.working:
            return
        if wait := self.why_wait(order):
            self._end(order, Phase.SCHEDULED, *wait)
            return
        target, now = self.target(order), self.loaded(order.module_name)
        if target == now:
            return
        if self.world.servers[self.name].traits.is_stock:
            self._end(order, Phase.FAILED, Reason.MODULE_COMMAND_DISABLED)
        elif now in self.world.typed:
            self._end(order, Phase.FAILED, Reason.EXPORTS_DATA_TYPES)
        else:
            self.world.rules.begins_to_change(self, order)
            self.changing = order

    def why_wait(self, order: Order) -> Wait | None:
        """Return why the server must not be changed now: its place has changed since the release, or it is not ready."""
        state = self.world.servers.state(self.name)
        changed = what_changed(order.expects, replication_of(state)) if order.expects is not None else ""
        return (Reason.ROLE_CHANGED, changed) if changed else why_not_ready(state)

    def _say(self, run: int, order: Order, phase: Phase) -> None:
        if run == self.run and order == self.working:
            self.world.carry_report(report_of(order, phase))

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
        way_back = self.shown_way_back(order) if phase == Phase.SUCCEEDED and self.holds_for(order) else None
        is_at_work = self.working is not None and not order.is_same(self.working)  # on an earlier attempt
        if self.holds_for(order) and not self.is_left(order) and not is_at_work:
            self.end_restart()
        former = dict(self.disk)
        if phase in {Phase.SUCCEEDED, Phase.SKIPPED} and reason not in NOT_POSSIBLE:
            self.change_disk(order)
        if phase == Phase.SKIPPED and self.disk != former:
            phase = Phase.SUCCEEDED  # what is not there already cannot be skipped
        report = replace(
            report_of(order, phase, reason),
            message=message,
            way_back=way_back,
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
        if order.is_loading:
            return order.version
        leaving = order.version if order.action == Action.REMOVE else order.undoes
        return None if now == leaving else now

    def spoil(self, module_name: str, version: int) -> None:
        """Somebody deletes its files."""
        self.disk.pop((module_name, version), None)
        self.spoiled.add((module_name, version))
        self.is_spoiled = True

    def change_disk(self, order: Order) -> None:
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
        self.settle_failover()
        self.look_at_left_restart()
        self._next()
