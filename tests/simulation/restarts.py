"""How an agent restarts its server, step by step, as `rollout.agent.operations.restart` does it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from rollout.agent.node.maintenance import LEFT_SECONDS
from rollout.agent.restart.risks import why_not_end
from rollout.messages import Phase, Reason, WayBack
from rollout.readiness import Wait
from tests.simulation.failovers import Failovers
from tests.simulation.orders import Deed, Disk, Entry, Held, Order, Script, Trouble

if TYPE_CHECKING:
    pass

#: A server that is down for so long has failed, and how often an agent looks, seconds.
STALL_SECONDS = 120.0
POLL_SECONDS = 2.0
#: Between two heartbeats, seconds.
BEAT_SECONDS = 10.0
Next = Callable[[Order, Script], None]


class Restarts(Failovers):
    """The part of an agent that restarts its server. `held` stays on its disk if the agent is killed."""

    alive: bool
    run: int
    working: Order | None
    changing: Order | None
    disk: Disk
    is_spoiled: bool
    journal: dict[str, Entry]
    #: What the heartbeats have seen of it, since when, and how often the server was started since.
    looked_at: Held | None = None
    left_since: datetime | None = None
    left_starts: int = 0

    # --- What it needs of the agent

    def why_wait(self, order: Order) -> Wait | None:
        raise NotImplementedError

    def target(self, order: Order) -> int | None:
        raise NotImplementedError

    def loaded(self, module_name: str) -> int | None:
        raise NotImplementedError

    def change_disk(self, order: Order) -> None:
        raise NotImplementedError

    # --- The restart

    def restarts(self, order: Order) -> bool:
        """Return True if the agent restarts its server for the order, or goes on with a restart that has begun."""
        is_needed = self.target(order) != self.loaded(order.module_name)
        return order.way == "restart" and order.is_loading and (is_needed or self.holds_for(order))

    def holds_for(self, order: Order) -> bool:
        return self.held is not None and self.held.order.generation == order.generation

    def is_committed(self, order: Order) -> bool:
        """Return True if the order can only be finished."""
        held = self.held
        return held is not None and self.holds_for(order) and (held.is_stopped or bool(held.failover))

    def begin_restart(self, order: Order, script: Script, *, is_resumed: bool) -> None:
        if not self.holds_for(order):
            self._later(script.checks_at * script.seconds, self._check_restart, order, script)
            return
        assert self.held
        server = self.world.servers[self.name]
        if not (is_resumed or server.is_up):
            self._leave(order, Reason.SERVER_UNREACHABLE)
            return
        self.changing = order
        self.settle_failover()
        if self.held.failover and not self.held.failed_over:
            self.held.is_back = True
            self._end(order, Phase.SKIPPED, Reason.FAILOVER_NOT_POSSIBLE)
            return
        if not is_resumed:
            self.held.trouble = script.trouble if script.phase == Phase.FAILED else None
        if not self.held.is_stopped or (server.is_up and server.run_id == self.held.run_id):
            self._end_server(order, script)
            return
        self._start(script.down_seconds)
        self._begin_to_wait(order, script, self._probe, self.held.run_id)

    def _check_restart(self, order: Order, script: Script) -> None:
        """Check all that can be checked. Else begin."""
        server = self.world.servers[self.name]
        trouble = script.trouble if script.phase == Phase.FAILED else None
        if trouble == Trouble.FETCH:
            self._end(order, Phase.FAILED, script.reason)
        elif refused := self._refusal(order):
            self._end(order, *refused)
        else:
            self.world.rules.begins_to_change(self.world.agents[self.name], order)
            self.held, self.changing = Held(order, server.run_id, dict(self.disk), trouble), order
            self.world.tell_of(self.name)
            self._later(script.before_seconds, self._end_server, order, script)

    def _refusal(self, order: Order) -> tuple[Phase, Reason, str] | None:
        """Return how the operation ends if the server must not be ended now."""
        server = self.world.servers[self.name]
        if wait := self.why_wait(order):
            return Phase.SCHEDULED, *wait
        if server.traits.restart == "none":
            return Phase.FAILED, Reason.RESTART_REQUIRED, "It is never restarted."
        if self.fails_over():
            if why := self.why_not_fail_over(order):
                return Phase.SCHEDULED, Reason.FAILOVER_NOT_POSSIBLE, why
        elif refused := self._why_not_end(order):
            return Phase.FAILED, *refused
        return (Phase.SCHEDULED, Reason.SAVE_UNSAFE, "BGSAVE is in progress.") if server.saves else None

    def _must_stay(self, order: Order) -> bool:
        """Return True if the server must not be ended once more."""
        state = self.world.servers.state(self.name)
        expected = "replica" if self.held and self.held.failed_over else order.expects and order.expects.role
        has_changed = expected is not None and state.role != expected
        return has_changed or self._why_not_end(order) is not None or (state.link_status or "up") != "up"

    def _why_not_end(self, order: Order) -> tuple[Reason, str] | None:
        servers = self.world.servers
        keeps = servers[self.name].traits.keeps
        return why_not_end(
            servers.info(self.name),
            "3600 1" if keeps == "save" else "",
            servers.start_lines(self.name),
            may_discard_data=order.may_discard_data,
        )

    def _end_server(self, order: Order, script: Script) -> None:
        """The line is switched. End the server's process."""
        held, server = self.held, self.world.servers[self.name]
        assert held
        if held.trouble == Trouble.BEFORE:
            self._take_back(order, script, Reason.PRE_COMMAND_FAILED)
        elif not server.is_up:
            self._take_back(order, script, Reason.SERVER_UNREACHABLE)
        elif held.failed_over:
            self.end_former_master(order, script)
        elif refused := self._refusal(order):  # since the first check, time has passed
            self._end(order, *refused)
        elif self.fails_over():
            self.begin_to_fail_over(order, script)
        else:
            self._end_again(order, script)

    def end_former_master(self, order: Order, script: Script) -> None:
        """It is a replica now, unless something else has happened since."""
        assert self.held
        if self._must_stay(order):
            self.held.is_back = True
            self._end(order, Phase.FAILED, Reason.RESTART_FAILED)
        else:
            self._end_again(order, script)

    def _end_again(self, order: Order, script: Script) -> None:
        run_id = self.world.servers[self.name].run_id
        assert self.held
        self.held.is_stopped, self.held.is_back = True, False
        self._end_process(order, script, is_first=True)
        self._begin_to_wait(order, script, self._probe, run_id)

    def _end_process(self, order: Order, script: Script, *, is_first: bool) -> None:
        self.world.rules.ends_server(self.world.agents[self.name], order, is_first=is_first)
        is_started = self.world.servers[self.name].traits.restart == "shutdown"  # by something else
        late = order.deadline_seconds if is_first and script.deed in {Deed.HANG, Deed.LATE} else 0.0
        self.world.end_process(self.name, script.down_seconds if is_started else None, script.load_seconds + late)
        self._start(script.down_seconds)

    def _start(self, seconds: float) -> None:
        """Start the process if nothing else does, unless the agent dies before it."""
        if self.world.servers[self.name].traits.restart == "command":
            self._later(seconds, self.world.start_process, self.name)

    def _begin_to_wait(self, order: Order, script: Script, then: Next, run_id: str) -> None:
        self._later(script.down_seconds + 1.0, self._wait, order, script, then, run_id, self.world.now)

    def _wait(self, order: Order, script: Script, then: Next, run_id: str, moved_at: datetime) -> None:
        """Wait until another process has loaded its data."""
        server = self.world.servers[self.name]
        is_new = server.is_up and server.run_id != run_id
        if is_new and not server.loads:
            self._later(script.seconds if then == self._probe else 1.0, then, order, script)
            return
        if is_new:
            moved_at = self.world.now
        has_stalled = (self.world.now - moved_at).total_seconds() > STALL_SECONDS
        if has_stalled or (server.is_ended and not self.server_starts()):
            if then == self._probe:
                self._take_back(order, script, Reason.RESTART_FAILED)
            else:
                self._leave(order, Reason.RESTART_FAILED)
            return
        self._later(POLL_SECONDS, self._wait, order, script, then, run_id, moved_at)

    def _probe(self, order: Order, script: Script) -> None:
        held, server = self.held, self.world.servers[self.name]
        assert held
        if not server.is_up:
            self._wait(order, script, self._probe, "", self.world.now)
        elif self.loaded(order.module_name) != order.version:  # the line was switched back already
            if self._must_stay(order):
                self._leave(order, Reason.RESTART_FAILED)
                return
            held.run_id = server.run_id
            self._end_again(order, script)
        elif held.trouble is not None:
            self._take_back(order, script, Reason.PROBE_FAILED)
        else:
            held.way_back = script.way_back
            self._end(order, Phase.SUCCEEDED, None)

    def shown_way_back(self, order: Order) -> WayBack | None:
        """Return what the node has shown, if a restart has replaced a version, not to undo something."""
        held = self.held
        if held is None or held.way_back is None or order.undoes is not None:
            return None
        former = [version for (_, version), (_, loaded) in held.former.items() if loaded and version != order.version]
        return WayBack(result=held.way_back, former_version=former[0]) if former else None

    def _take_back(self, order: Order, script: Script, reason: Reason) -> None:
        """Let the server run its former version, with one more restart if it has had the first one."""
        held, server = self.held, self.world.servers[self.name]
        assert held
        self.journal[order.module_name].failure = reason
        has_restarted = held.is_stopped and server.is_up and server.run_id != held.run_id
        if has_restarted and self._must_stay(order):
            self._leave(order, reason)
            return
        held.is_back = True
        if not held.is_stopped or (server.is_up and server.run_id == held.run_id):
            self._taken_back(order, script)
            return
        run_id = server.run_id if server.is_up else ""
        if run_id:
            self._end_process(order, script, is_first=False)
        else:
            self._start(script.down_seconds)
        self._begin_to_wait(order, script, self._taken_back, run_id)

    def _taken_back(self, order: Order, script: Script) -> None:
        assert self.held
        # A server that could not be reached may run the new version still.
        self.is_spoiled |= self.disk != self.held.former
        reason = self.journal[order.module_name].failure
        self._end(order, Phase.SKIPPED if reason == Reason.PRE_COMMAND_FAILED else Phase.FAILED, reason)

    def _leave(self, order: Order, reason: Reason) -> None:
        """The server does not run its former version either, or cannot be reached."""
        self.is_spoiled = True
        self.journal[order.module_name].is_left = True
        self._end(order, Phase.FAILED, reason)
        self.world.after(BEAT_SECONDS, self.look_at_left_restart)

    def is_left(self, order: Order) -> bool:
        return self.journal[order.module_name].is_left

    def end_restart(self) -> None:
        """The node is in service again."""
        self.settle_failover()
        self.held = None
        self.world.tell_of(self.name)

    def look_at_left_restart(self) -> None:
        """With each heartbeat: end a restart that its operation has left."""
        held = self.held
        if held is None or not self.alive:
            return
        entry = self.journal[held.order.module_name]
        is_unfinished = entry.report is None and entry.order.generation == held.order.generation
        if self.looked_at != held or self.working is not None:
            self.looked_at, self.left_since, self.left_starts = replace(held), self.world.now, 0
        if self.working is None and (not is_unfinished or self._is_left()):
            if self.world.servers[self.name].is_up:
                self.end_restart()
                return
            if self._is_left() or not self.left_starts:
                held.is_back |= is_unfinished and self.left_starts > 0
                self.looked_at, self.left_since, self.left_starts = replace(held), self.world.now, self.left_starts + 1
                self._start(1.0)
        self.world.after(BEAT_SECONDS, self.look_at_left_restart)

    def _is_left(self) -> bool:
        return self.left_since is not None and (self.world.now - self.left_since).total_seconds() >= LEFT_SECONDS

    # --- The server

    def server_starts(self) -> bool:
        """Return True if the server starts with what its line names."""
        held = self.held
        return held is None or held.is_back or not held.is_stopped or held.trouble != Trouble.START

    def server_started(self) -> None:
        """It has loaded what its line names."""
        held = self.held
        if held is None or not held.is_stopped:
            return
        self.disk = dict(held.former)
        if not held.is_back:
            self.change_disk(replace(held.order, undoes=None))

    def _later(self, seconds: float, function: Callable[..., object], *args: object) -> None:
        """Do it, unless the agent dies or ends the operation before."""
        self.world.after(seconds, self._unless_ended, self.run, function, *args)

    def _unless_ended(self, run: int, function: Callable[..., object], *args: object) -> None:
        if run == self.run:
            function(*args)
