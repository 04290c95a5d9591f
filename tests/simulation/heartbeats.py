"""What the control plane learns of servers by heartbeats: their places, if they are ready, and silence."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from msgspec import to_builtins

from rollout.domain.node.commands import DeclareOffline, RecordHeartbeat
from rollout.domain.node.state import NodePhase
from rollout.domain.placement.commands import GiveBack
from rollout.domain.topology import servers as topology
from rollout.domain.topology.places import places_of
from rollout.domain.topology.servers import facts_of, replication_of
from rollout.messages import InstalledModule, Inventory, NodeProfile, Phase, ServerState
from rollout.models import Liveness, ShardMember
from rollout.process.shards import move
from rollout.readiness import why_not_ready
from tests.simulation.clock import EPOCH
from tests.simulation.control_plane import AWAY, BEAT_SECONDS, SILENCE_SECONDS, ZONE, ControlPlane


class Heartbeats(ControlPlane):
    def inventory_of(self, name: str) -> Inventory:
        self._heartbeats += 1
        modules = tuple(
            InstalledModule(module_name=module_name, version=version, content_sha256=content, loaded=loaded)
            for (module_name, version), (content, loaded) in sorted(self.agents[name].disk.items())
        )
        return Inventory(sequence=self._heartbeats, modules=modules)

    def state_of(self, name: str) -> ServerState:
        """Return what its agent reports of its server."""
        maintenance = "restart" if self.agents[name].held else ""
        return replace(self.servers.state(name), maintenance=maintenance)

    def _take_heartbeat(self, name: str, inventory: Inventory, state: ServerState, hello: bool = False) -> None:
        zone = self.servers[name].zone
        profile = NodeProfile(platform="linux/x86_64", labels={ZONE: zone} if zone else {})
        degradation = AWAY if state.problem else None
        if inventory.sequence < self.reported.get(name, (0, None))[0]:
            return
        command = RecordHeartbeat(node=name, hello=hello, profile=profile, inventory=inventory, degradation=degradation)
        self.last_heard[name] = self.now
        had_left = name in self.left_at and self.rows.nodes[name].phase == NodePhase.DECOMMISSIONED
        self.record(self._command_node(command))
        if had_left and not state.role and self.rows.nodes[name].phase != NodePhase.DECOMMISSIONED:
            self.servers.forget(name)
        is_known = name in self.rows.members and self.reported[name][1] == state
        if name in self.reported and self.reported[name][1].maintenance:
            self._restarting_at[name] = self.now
        self.reported[name] = inventory.sequence, state
        if state.enable_module_command == "no":
            self.stock_servers.add(name)
        if self.rows.nodes[name].phase != NodePhase.DECOMMISSIONED:
            self.servers.told(name, state, self.now)
        moved = set() if is_known else self._place_members()
        rows = (row for node in sorted({name, *moved}) for row in self.unfinished_on(node))
        for uid in sorted({row.rollout for row in rows}):
            self.advance(uid)
        self._run_relay_soon()

    def _place_members(self) -> set[str]:
        """Place the nodes of the fleet by what they have reported. Return those that have changed."""
        members = self.rows.members
        names = [name for name in sorted(self.reported) if self.rows.nodes[name].phase != NodePhase.DECOMMISSIONED]
        facts = {}
        for name in names:
            state = self.reported[name][1]
            if state.role or name not in members:
                facts[name] = facts_of(state), to_builtins(replication_of(state))
            else:  # it is away, and its place stays
                facts[name] = self._facts[name]
        self._facts = facts
        places = places_of([topology.Server(node=name, facts=facts[name][0]) for name in names], self.fleet.ignored)
        former = {name: vars(row) | {"_state": None} for name, row in members.items()}
        known = dict(members)
        members.clear()
        for name in names:
            row = members[name] = known.get(name) or ShardMember(node=name)
            row.replication, row.host = facts[name][1], self.servers[name].host
            row.not_ready, row.not_ready_message = why_not_ready(self.reported[name][1]) or ("", "")
            move(row, places[name], self.now)
        now = {name: vars(row) | {"_state": None} for name, row in members.items()}
        return {name for name in names if now[name] != former.get(name)}

    def known_server(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = to_builtins(self.reported[name][1])
        return found

    def restarting_at(self, name: str) -> datetime | None:
        """Return when the node has last said that it restarts its server."""
        if name in self.reported and self.reported[name][1].maintenance:
            return self.heard(name).last_seen
        return self._restarting_at.get(name)

    def heard(self, name: str) -> Liveness:
        agent = self.agents[name]
        seconds = ((agent.silent_since or self.now) - EPOCH).total_seconds()
        beats = (seconds - agent.beats_at) // BEAT_SECONDS
        beat = EPOCH + timedelta(seconds=agent.beats_at + beats * BEAT_SECONDS)
        last_seen = max(beat, self.last_heard[name])
        row = self._liveness[name]
        row.last_seen = last_seen
        return row

    def _fall_silent(self, name: str) -> None:
        agent = self.agents[name]
        agent.silent_since = agent.silent_since or self.now
        self.after(SILENCE_SECONDS + 0.1, self._judge_silence, name)

    def _judge_silence(self, name: str) -> None:
        since = self.agents[name].silent_since
        if since is None or (self.now - since).total_seconds() < SILENCE_SECONDS:
            return
        given_back = [
            GiveBack(node=name, module_name=row.module_name)
            for row in self.unfinished_on(name)
            if row.phase == Phase.QUEUED
        ]
        self.record([*self._command_node(DeclareOffline(node=name)), *self._decided(given_back)])
