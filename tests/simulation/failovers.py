"""How an agent gives the role of its server to a replica before a restart, as `rollout.agent.failover` does it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from rollout.domain.strategy import Strategy
from rollout.messages import Phase, Reason
from tests.simulation.orders import Held, Order, Script
from tests.simulation.servers import Server

if TYPE_CHECKING:
    from tests.simulation.nodes import Nodes

#: How long the writes of clients wait at most, also if the agent has died, seconds.
LONGEST_PAUSE_SECONDS = 40.0
#: Between the new role and the end of the pause, seconds.
FINISH_SECONDS = 0.5


class Failovers:
    """The part of an agent that fails over."""

    world: "Nodes"
    name: str
    held: Held | None

    def fails_over(self) -> bool:
        """Return True if its server is a master with replicas, and fails over."""
        server = self.world.servers[self.name]
        return server.traits.failover != "none" and not server.master and any(self._replicas())

    def why_not_fail_over(self, order: Order) -> str:
        """Return why no replica can take over now; empty if one can."""
        if any(each.loads for each in self._replicas()):
            return "A replica is not online."
        return "" if self._candidates(order) else "No replica has the module yet."

    def begin_to_fail_over(self, order: Order, script: Script) -> None:
        """Note it, and let the writes of clients wait."""
        assert self.held
        self.held.failover, server = self._candidates(order)[0].name, self.world.servers[self.name]
        server.pauses += 1
        self.world.after(LONGEST_PAUSE_SECONDS, self._end_pause, server.pauses)
        self._later(min(script.switch_seconds, Strategy().pause_seconds), self._switch_roles, order, script)

    def _switch_roles(self, order: Order, script: Script) -> None:
        assert self.held
        chosen, servers = self.world.servers[self.held.failover], self.world.servers
        can_take_over = chosen in self._candidates(order) and servers.is_master_of_shard(self.name)
        if script.switch_seconds > Strategy().pause_seconds or not (can_take_over and servers[self.name].is_up):
            self._undo_failover(order)
            return
        self.world.rules.fails_over(self.world.agents[self.name], order, chosen)
        self.world.give_role(self.name, chosen.name)
        self._later(FINISH_SECONDS, self._go_on, order, script)

    def _undo_failover(self, order: Order) -> None:
        assert self.held
        self._end_pause(self.world.servers[self.name].pauses)
        self.held.is_back = True
        self._end(order, Phase.SKIPPED, Reason.FAILOVER_NOT_POSSIBLE)

    def _go_on(self, order: Order, script: Script) -> None:
        self.settle_failover()
        self.end_former_master(order, script)

    def settle_failover(self) -> None:
        """Finish a failover, also one that was interrupted; without a new master, only the pause ends."""
        held, servers = self.held, self.world.servers
        if held is None or not held.failover or held.failed_over:
            return
        held.failed_over = not servers[held.failover].master and servers[self.name].master == held.failover
        self._end_pause(servers[self.name].pauses)
        if held.failed_over:
            for each in servers.replicas(self.name):
                self.world.replicate(each.name, held.failover)
                each.starts_below = each.master
            for name in (self.name, held.failover):
                servers[name].starts_below = servers[name].master

    def _end_pause(self, number: int) -> None:
        server = self.world.servers[self.name]
        server.ended_pauses = max(server.ended_pauses, number)

    def _replicas(self) -> list[Server]:
        return [each for each in self.world.servers.replicas(self.name) if each.is_up]

    def _candidates(self, order: Order) -> list[Server]:
        agents = self.world.agents
        return [
            each
            for each in self._replicas()
            if not each.loads and each.name in agents and agents[each.name].loaded(order.module_name) == order.version
        ]

    # --- What it needs of the agent

    def end_former_master(self, order: Order, script: Script) -> None:
        raise NotImplementedError

    def _end(self, order: Order, phase: Phase, reason: Reason | None, message: str = "") -> None:
        raise NotImplementedError

    def _later(self, seconds: float, function: Callable[..., object], *args: object) -> None:
        raise NotImplementedError
