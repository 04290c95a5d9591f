"""What happens to nodes and their servers: heartbeats, faults, failovers, and what people do to nodes."""

from rollout.domain.node.commands import (
    ActivateNode,
    DecommissionNode,
    DrainNode,
    EndDrift,
    EnrollNode,
    RecordDrift,
)
from rollout.domain.placement.commands import (
    Forget,
)
from rollout.messages import (
    InstalledModule,
    Inventory,
)
from rollout.models import Liveness
from rollout.process.placements import end_of_decommissioned
from tests.simulation.agents import Agent, Disk
from tests.simulation.clock import EPOCH
from tests.simulation.control_plane import BEAT_SECONDS, MODULE
from tests.simulation.heartbeats import Heartbeats


class Nodes(Heartbeats):
    """The nodes of the fleet, and what becomes of them."""

    def join(self, name: str, disk: Disk | None = None, **server: str) -> None:
        """Add a node. `server`: of `Servers.add`."""
        self.servers.add(name, **server)
        self.agents[name] = Agent(self, name, disk)
        self._liveness[name] = Liveness(node=name, interval_seconds=BEAT_SECONDS)
        self.record(self._command_node(enrolment_of(name)))
        self.heartbeat(name, hello=True)
        self.tell_of(name)

    def inventory_of(self, name: str) -> Inventory:
        self._heartbeats += 1
        modules = tuple(
            InstalledModule(module_name=module_name, version=version, content_sha256=content, loaded=loaded)
            for (module_name, version), (content, loaded) in sorted(self.agents[name].disk.items())
        )
        return Inventory(sequence=self._heartbeats, modules=modules)

    def heartbeat(self, name: str, *, hello: bool = False) -> None:
        """A heartbeat that arrives at once. The others, every `BEAT_SECONDS`, are played only if they tell something new."""
        if hello:
            self.hello_at[name] = self.now
            if master := self.servers[name].master:
                self.servers.regroup(name, self.servers[master].group)
        inventory, state = self.inventory_of(name), self.servers.state(name)
        self._take_heartbeat(name, inventory, state, hello)

    def tell_of(self, *names: str) -> None:
        """The servers of these nodes have changed: their next heartbeats tell of it."""
        for name in names:
            seconds = (self.now - EPOCH).total_seconds() - self.agents[name].beats_at
            self.after(BEAT_SECONDS - seconds % BEAT_SECONDS, self._beat, name)

    def _beat(self, name: str) -> None:
        agent, state = self.agents[name], self.servers.state(name)
        if not agent.is_heard or self.reported[name][1] == state:
            return
        self._carry(self._take_heartbeat, name, self.inventory_of(name), state)
        self.after(BEAT_SECONDS, self._beat, name)  # if the wire loses it

    def changed(self, group: str) -> None:
        """Something has changed in this shard."""
        self.tell_of(*(each.name for each in self.servers if each.group == group))

    def kill(self, name: str, seconds: float) -> None:
        """Its agent dies, and is started again after so long."""
        self.agents[name].stop()
        self._fall_silent(name)
        self.after(seconds, self.revive, name, True)

    def cut(self, name: str, seconds: float) -> None:
        """Nothing reaches it, and nothing of it arrives, for so long; it works on."""
        self.agents[name].reachable = False
        self._fall_silent(name)
        self.after(seconds, self.revive, name, False)

    def stop_server(self, name: str, seconds: float) -> None:
        """Its server is away for so long, as its next heartbeats report."""
        self.servers[name].is_up = False
        self.changed(self.servers[name].group)
        self.after(seconds, self.start_server, name)

    def start_server(self, name: str) -> None:
        self.servers[name].is_up = True
        self.changed(self.servers[name].group)
        self._separate(name)

    def load_data(self, name: str, seconds: float) -> None:
        """Its server loads data for so long."""
        self._unready(name, loads=1)
        self.after(seconds, self._unready, name, -1)

    def back_up(self, name: str, seconds: float) -> None:
        """A tool copies the data of its server for so long."""
        self._unready(name, backups=1)
        self.after(seconds, self._unready, name, 0, -1)

    def _unready(self, name: str, loads: int = 0, backups: int = 0) -> None:
        self.servers[name].loads += loads
        self.servers[name].backups += backups
        self.tell_of(name)

    def fail_over(self, name: str) -> None:
        """A replica of the master `name` takes its place. The other replicas follow one after the other. The old master
        follows too: until then, it is alone or away."""
        replicas = [each for each in self.servers.replicas(name) if each.is_up]
        server = self.servers[name]
        if server.master or not replicas:
            return
        group, chosen = server.group, self.chance.choice(replicas).name
        self.servers.move(group, self.now)
        self.servers[chosen].master = ""
        for each in self.servers.replicas(name):
            self.after(self.chance.uniform(0.1, 8.0), self._follow, each.name, name, chosen)
        if self.chance.random() < 0.5:
            self.stop_server(name, self.chance.choice((5.0, 60.0, 400.0)))
        self._separate(name)
        self.after(self.chance.choice((2.0, 30.0, 500.0)), self._follow, name, "", chosen)
        self.changed(group)

    def _follow(self, name: str, former: str, chosen: str) -> None:
        """Copy the server that was chosen in a failover, unless the server has another master by now."""
        server = self.servers[name]
        if not server.is_up:
            self.after(2.0, self._follow, name, former, chosen)
        elif server.master == former:
            self.replicate(name, self.servers.top(chosen))
            if former:
                self._separate(former)

    def _separate(self, name: str) -> None:
        """A former master that is up and has no replicas any more is a copy of nothing, until it follows."""
        server = self.servers[name]
        is_alone = not server.master and not self.servers.replicas(name)
        if (
            server.is_up
            and is_alone
            and any(each.group == server.group and each is not server for each in self.servers)
        ):
            self._numbers += 1
            server.group = f"{name} {self._numbers}"

    def replicate(self, name: str, master: str) -> None:
        """The server becomes a replica."""
        self._move(name)
        self.servers.follow(name, master)
        self._move(name)

    def _move(self, name: str) -> None:
        self.servers.move(self.servers[name].group, self.now)
        self.changed(self.servers[name].group)

    def leave_shard(self, name: str) -> None:
        """The replica becomes a master of its own."""
        self._move(name)
        self._numbers += 1
        self.servers.leave(name, f"{name} {self._numbers}")
        self._move(name)

    def revive(self, name: str, hello: bool) -> None:
        agent = self.agents[name]
        is_new = hello and not agent.alive
        if not agent.alive and not hello:
            return  # it was cut off, and died meanwhile
        if agent.is_heard:
            return
        agent.silent_since = None
        agent.start()
        self.heartbeat(name, hello=is_new)

    def drain(self, name: str) -> None:
        self.record(self._command_node(DrainNode(node=name)))

    def activate(self, name: str) -> None:
        self.record(self._command_node(ActivateNode(node=name)))

    def decommission(self, name: str) -> None:
        ends = [end_of_decommissioned(row) for row in self.unfinished_on(name)]
        forgotten = Forget(node=name, module_name=MODULE)
        self.record([*self._command_node(DecommissionNode(node=name)), *self._decided([*ends, forgotten])])
        self._place_members()
        self.servers.regroup(name, f"{name} decommissioned")  # below it, nothing tells any more whose data is copied

    def drift(self, name: str, version: int) -> None:
        """The files of the module are missing on the disk, as the next heartbeat reports."""
        placement = self.placements.get((name, MODULE))
        if (
            placement is not None
            and placement.live is None
            and any(each.version == version for each in placement.desired)
        ):
            self.agents[name].spoil(MODULE, version)
            command = RecordDrift(
                node=name, module_name=MODULE, version=version, desired="load", observed="absent", content_sha256=""
            )
            self.record(self._command_node(command))

    def end_drift(self, name: str, version: int) -> None:
        self.record(self._command_node(EndDrift(node=name, module_name=MODULE, version=version)))


def enrolment_of(name: str) -> EnrollNode:
    """The same each time: nothing changes for a node that has joined."""
    return EnrollNode(
        node=name,
        token="t",
        public_key=f"key of {name}",
        broker_password_sha256=f"password of {name}",
        labels={},
        accepted=True,
        is_silent=True,
    )
