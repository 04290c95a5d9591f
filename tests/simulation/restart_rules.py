"""What holds when a restart is released, when an agent ends its server, and at the end of all.

A release is judged by what had been reported, and the end of a server by what its own agent can see.
"""

from typing import TYPE_CHECKING

from rollout.domain.rollout.events import Origin, RolloutStarted
from rollout.domain.window import parse_window
from rollout.messages import Way, Ways
from rollout.models import Operation
from tests.simulation.server_rules import ServerRules

if TYPE_CHECKING:
    from tests.simulation.agents import Agent
    from tests.simulation.orders import Order


class RestartRules(ServerRules):
    def releases_restart(self, row: Operation) -> None:
        world = self.world
        if row.way != Way.RESTART:
            return
        window = world.rollouts[row.rollout].strategy.window
        is_open = not window or parse_window(window).opens_at(world.now) is None
        self.holds(is_open, "a restart only inside the window", f"{row.node} {window}")
        _, state = world.reported[row.node]
        if state.role == "replica":
            master = next((each for _, each in world.reported.values() if state.master in each.addresses[:1]), None)
            needed = master.min_replicas_to_write if master else None
            good = sum(each.state == "online" for each in master.replicas) if master else 0
            is_fine = needed is not None and (needed == 0 or good > needed)
            self.holds(is_fine, "no restart below min-replicas-to-write", f"{row.node} {good} {needed}")

    def ends_server(self, agent: "Agent", order: "Order", *, is_first: bool) -> None:
        """`is_first`: with the new version, not back to the former one."""
        own, servers, asked = self.world.servers[agent.name], self.world.servers, self._asked(order)
        if is_first:
            is_asked = asked.ways != Ways.LOAD and asked.origin != Origin.RECONCILER
            is_automatic = (order.rollout, order.node, *order.number) in self.world.rules.automatic
            self.holds(is_asked and not is_automatic, "no restart that was not asked for", order.rollout)
        connected = [each.name for each in servers.replicas(own.name) if each.is_up]
        self.holds(own.master or not connected, "no restart of a master with replicas", f"{own.name} {connected}")
        self.holds(own.master or asked.may_interrupt, "no interruption that was not allowed", own.name)
        is_kept = bool(own.traits.keeps) or (bool(own.master) and servers[own.master].is_up)
        self.holds(is_kept or asked.may_discard_data, "no restart of the last copy", own.name)
        self.holds(own.starts_below == own.master, "a restart keeps the role", own.name)
        for other in self.world.agents.values():
            theirs = self.world.servers[other.name]
            if other is not agent and self._is_restarting(other) and not self._has_left(theirs):
                at = order.released_at
                is_told = self._is_member(own, at) and self._is_member(theirs, at)
                self.holds(
                    own.group != theirs.group or not is_told,
                    "one restart of a shard at a time",
                    f"{own.name} {theirs.name}",
                )

    def _asked(self, order: "Order") -> RolloutStarted:
        """Return the start of what a person has asked for: of a rollback, that is what is rolled back."""
        started = self.world.started(order.rollout)
        return self.world.started(started.rollback_of) if started.rollback_of else started

    def _is_restarting(self, other: "Agent") -> bool:
        """Return True from the end of its server's process until the agent has seen that it is healthy; if the agent was killed,
        until the server has loaded its data, or the operation is given up."""
        held, server = other.held, self.world.servers[other.name]
        if held is None or not held.is_stopped:
            return False
        row = self.world.operation(held.order.rollout, other.name)
        is_given_up = row is None or row.finished_at is not None
        return other.working is not None or ((server.is_ended or server.loads > 0) and not is_given_up)

    def nothing_is_left(self) -> None:
        for agent in self.world.agents.values():
            self.holds(agent.held is None, "no node is left in maintenance", agent.name)
        for each in self.world.servers:
            self.holds(not each.is_ended, "no server is left without a process", each.name)
