"""What holds when an agent has checked its server and begins to change it: what agents really do, whatever the control
plane believes.

Two facts limit what anybody can keep. An agent sees the state of its own server, its master, and the replicas that are
connected to it. The control plane sees of the others what was reported before it released the operation. So every rule holds
from the first moment of a failover on. Not judged is only what no agent had reported before the release:
- a server that has joined the shard, until its own heartbeat tells it: a master's list alone makes no member;
- a replica that is further away than the next server, or not connected, until they tell it;
- a membership through two servers in a row without agents, of which no agent can report that one copies the other.
"""

from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from rollout.domain.node.state import NodePhase
from rollout.domain.rollout.turns import is_below
from rollout.messages import Way
from tests.simulation.servers import Server
from tests.simulation.watch import Watch

if TYPE_CHECKING:
    from tests.simulation.agents import Agent
    from tests.simulation.orders import Order


class ServerRules(Watch):
    def begins_to_change(self, agent: "Agent", order: "Order") -> None:
        own = self.world.servers[agent.name]
        self.holds(own.is_ready, "only a server that is ready", agent.name)
        if self._has_left(own):
            return
        for other in self.world.agents.values():
            theirs = self.world.servers[other.name]
            if other.changing is not None and other is not agent and not self._has_left(theirs):
                self._are_apart(own, theirs, order, other.changing)
        if is_below(agent.loaded(order.module_name), agent.target(order)):
            self._comes_after_its_replicas(agent, order)
        else:
            self._comes_after_its_master(agent, order)

    def _has_left(self, server: Server) -> bool:
        return self.world.rows.nodes[server.name].phase == NodePhase.DECOMMISSIONED

    def _are_apart(self, own: Server, theirs: Server, order: "Order", their_order: "Order") -> None:
        """A shard has the members that it had before a failover, until they are reported elsewhere."""
        both, released_at = f"{own.name} and {theirs.name}", max(order.released_at, their_order.released_at)
        is_told = all(self._is_member(each, released_at) for each in (own, theirs))
        self.holds(own.group != theirs.group or not is_told, "one copy of a shard at a time", both)
        self.holds(own.host != theirs.host, "one node of a host at a time", both)
        label, their_label = (
            self.world.rows.rollouts[each.rollout].strategy.get("domain", "") for each in (order, their_order)
        )
        if label and label == their_label:
            self.holds(own.zone == theirs.zone, "one failure domain at a time", both)

    def _is_member(self, server: Server, at: datetime) -> bool:
        """Return True if the control plane could know to which shard the server belongs."""
        path = [server, *self.world.servers.above(server.name)]
        strangers = [not each.is_node or self._has_left(each) for each in path]
        is_told = server.member_told_at is not None and server.member_told_at <= at
        return is_told and not any(lower and upper for lower, upper in pairwise(strangers))

    def _comes_after_its_replicas(self, agent: "Agent", order: "Order") -> None:
        """A replica never has an older version than the servers above it."""
        servers, target = self.world.servers, agent.target(order)
        own = servers[agent.name]
        for each in servers.below(agent.name):
            is_seen = each.master == agent.name and each.is_up
            if not is_seen and not servers.is_path_told(each, own, order.released_at):
                continue
            if not each.is_node or self._had_left(each, order.released_at):
                is_fine = each.address in order.ignored | self.world.fleet.ignored
                self.holds(is_fine, "no master before a replica without an agent", f"{agent.name} {each.name}")
                continue
            other = self.world.agents[each.name]
            found = other.loaded(order.module_name)
            is_fine = other.is_spoiled or not is_below(found, target)
            self.holds(is_fine, "replicas before their master", f"{agent.name} {each.name} {found} {target}")

    def _comes_after_its_master(self, agent: "Agent", order: "Order") -> None:
        servers, target = self.world.servers, agent.target(order)
        own = servers[agent.name]
        for each in servers.above(agent.name):
            is_seen = each.name == own.master
            if not each.is_node or not (is_seen or servers.is_path_told(own, each, order.released_at)):
                continue
            other = self.world.agents[each.name]
            found = other.loaded(order.module_name)
            is_fine = other.is_spoiled or not is_below(target, found) or self._follows(each.name, order)
            self.holds(is_fine, "a master before its replicas", f"{agent.name} {each.name} {found} {target}")

    def _follows(self, name: str, order: "Order") -> bool:
        """Return True if the rollout restarts the server too: a restart goes to the replicas first. If it was aborted since the
        release, the server keeps what it has."""
        rows = (row for row in self.world.rows.of(order.rollout) if row.node == name and row.way == Way.RESTART)
        return order.way == Way.RESTART and any(
            row.finished_at is None or row.finished_at > order.released_at for row in rows
        )

    def _had_left(self, server: Server, at: datetime) -> bool:
        left_at = self.world.left_at.get(server.name)
        return self._has_left(server) and left_at is not None and left_at <= at
