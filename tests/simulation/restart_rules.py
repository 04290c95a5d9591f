"""What holds when a restart is released, when an agent ends its server, and at the end of all.

A release is judged by what had been reported, and the end of a server by what its own agent can see.
"""

from typing import TYPE_CHECKING

from rollout.domain.rollout.events import NodesReleased, Origin, RolloutPhase, RolloutStarted
from rollout.domain.rollout.state import RolloutState
from rollout.domain.window import parse_window
from rollout.messages import Action, Way, Ways
from rollout.models import Operation, Rollout
from rollout.queries.turns import is_replaced_by_restart
from tests.simulation.server_rules import ServerRules
from tests.simulation.servers import Server
from tests.simulation.snapshot import FactsInMemory

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
        loaded = FactsInMemory(world.rows).loaded(row.module_name, {row.node})
        if row.action == Action.REMOVE and row.version not in loaded.values():
            return  # its agent restarts nothing
        _, state = world.reported[row.node]
        host = world.servers[row.node].host
        beside = [
            name for name, (_, each) in world.reported.items() if each.save_problem and world.servers[name].host == host
        ]
        beside = [name for name in beside if name in world.rows.members]
        self.holds(not beside, "no restart beside a save on its host", f"{row.node} {beside}")
        if state.role == "replica":
            master = next((each for _, each in world.reported.values() if state.master in each.addresses[:1]), None)
            needed = master.min_replicas_to_write if master else None
            good = sum(each.state == "online" for each in master.replicas) if master else 0
            is_fine = needed is not None and (needed == 0 or good > needed)
            if state.aof_enabled:
                self.holds(
                    bool(master and not master.save_problem), "no full synchronization of a master that saves", row.node
                )
            self.holds(is_fine, "no restart below min-replicas-to-write", f"{row.node} {good} {needed}")

    def releases_first(self, event: NodesReleased) -> None:
        """Until a node has shown if the former version can read what the new one writes, one changes alone."""
        rows = self.world.rows.of(event.rollout)
        if self.world.rows.rollouts[event.rollout].way_back is not None:
            return
        restarted = [each for each in rows if each.way == Way.RESTART and not each.rollback]
        loaded = FactsInMemory(self.world.rows).loaded(rows[0].module_name, {each.node for each in restarted})
        first = [each.node for each in restarted if each.node in event.nodes and is_replaced_by_restart(each, loaded)]
        busy = [each.node for each in restarted if each.deadline_at is not None and each.node not in event.nodes]
        self.holds(not first or len([*first, *busy]) == 1, "the first version is replaced alone", f"{first} {busy}")

    def knows_one_way(self, row: Rollout, state: RolloutState) -> None:
        is_closed = bool(row.way_back and row.way_back["not_open"] and row.way_back["not_open"]["result"] == "closed")
        is_known = state.one_way is not None or state.phase == RolloutPhase.ROLLING_BACK or state.restoring
        self.holds(is_known or not is_closed, "a closed way back is known", row.uid)

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

    def fails_over(self, agent: "Agent", order: "Order", chosen: Server) -> None:
        own, asked = self.world.servers[agent.name], self._asked(order)
        is_asked = asked.ways != Ways.LOAD and asked.origin != Origin.RECONCILER
        self.holds(is_asked and own.traits.failover != "none", "no failover that was not asked for", order.rollout)
        self.holds(own.is_paused, "writes wait while the role moves", own.name)
        loaded = self.world.agents[chosen.name].loaded(order.module_name) if chosen.is_node else None
        self.holds(loaded == order.version, "the new master has the new version", f"{chosen.name} {loaded}")

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
            self.holds(not each.is_paused, "no write is left waiting", each.name)
            self.holds(not each.is_ended, "no server is left without a process", each.name)
