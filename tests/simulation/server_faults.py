"""What happens to servers: they are away or not ready, fail over, and move from shard to shard; some have no agent."""

from tests.simulation.clock import EPOCH
from tests.simulation.control_plane import BEAT_SECONDS
from tests.simulation.heartbeats import Heartbeats
from tests.simulation.servers import address_of

#: A former master counts as a copy of its shard for so long after a failover, also if nothing copies it any more, seconds.
FORMER_SECONDS = 60.0
#: How often a supervisor starts a server that does not start, seconds.
TRIES_AGAIN_SECONDS = 5.0


class ServerFaults(Heartbeats):
    """Whatever changes is told by the next heartbeats of the shard's nodes."""

    def changed(self, group: str) -> None:
        self.tell_of(*(each.name for each in self.servers if each.group == group))

    def tell_of(self, *names: str) -> None:
        """The servers of these nodes have changed: their next heartbeats tell of it."""
        for name in names:
            if name in self.agents:
                seconds = (self.now - EPOCH).total_seconds() - self.agents[name].beats_at
                self.after(BEAT_SECONDS - seconds % BEAT_SECONDS, self._beat, name)

    # --- Away, or not ready

    def stop_server(self, name: str, seconds: float) -> None:
        """It is away for so long."""
        self.servers[name].is_away = True
        self.changed(self.servers[name].group)
        self.after(seconds, self.start_server, name)

    def start_server(self, name: str) -> None:
        self.servers[name].is_away = False
        self.changed(self.servers[name].group)
        self._separate(name)

    def end_process(self, name: str, seconds: float | None, load_seconds: float = 0.0) -> None:
        """Its process ends. Something starts another one after so long, if it can be started; None: nothing does."""
        server = self.servers[name]
        server.is_ended, server.load_seconds = True, load_seconds
        self.changed(server.group)
        if seconds is not None:
            self.after(seconds, self._start_again, name)

    def crash(self, name: str, seconds: float, load_seconds: float) -> None:
        """Its process ends by itself."""
        if self.servers[name].is_up:
            self.end_process(name, seconds, load_seconds)

    def start_process(self, name: str) -> None:
        """It loads its data, and the modules that its lines name. It is a replica or a master as before."""
        server, agent = self.servers[name], self.agents[name]
        if server.is_ended and agent.server_starts():
            server.is_ended, server.process = False, server.process + 1
            agent.server_started()
            if server.load_seconds:
                self.load_data(name, server.load_seconds)
            self.changed(server.group)
            self._separate(name)

    def _start_again(self, name: str) -> None:
        self.start_process(name)
        if self.servers[name].is_ended:
            self.after(TRIES_AGAIN_SECONDS, self._start_again, name)

    def load_data(self, name: str, seconds: float) -> None:
        """It loads data for so long."""
        self._unready(name, loads=1)
        self.after(seconds, self._unready, name, -1)

    def back_up(self, name: str, seconds: float) -> None:
        """A tool copies its data for so long."""
        self._unready(name, backups=1)
        self.after(seconds, self._unready, name, 0, -1)

    def save_data(self, name: str, seconds: float) -> None:
        """A child process saves its data for so long."""
        self.servers[name].saves += 1
        self.tell_of(name)
        self.after(seconds, self._end_save, name)

    def _end_save(self, name: str) -> None:
        self.servers[name].saves -= 1
        self.tell_of(name)

    def _unready(self, name: str, loads: int = 0, backups: int = 0) -> None:
        self.servers[name].loads += loads
        self.servers[name].backups += backups
        self.tell_of(name)

    def claim(self, name: str, other: str, seconds: float) -> None:
        """It says for so long that the address of another server is its own."""
        self.servers[name].claims = (address_of(other),)
        self.tell_of(name)
        self.after(seconds, self._end_claim, name)

    def _end_claim(self, name: str) -> None:
        self.servers[name].claims = ()
        self.tell_of(name)

    # --- Another master

    def add_unmanaged(self, name: str, master: str) -> None:
        """A replica without an agent appears."""
        self.servers.add(name, master=master, is_node=False)
        self.servers[name].linked_at = self.now
        self.changed(self.servers[name].group)

    def fail_over(self, name: str) -> None:
        """A replica takes the place of its shard's master. The other replicas follow one after the other. The old master
        follows too: until then, it is alone or away."""
        replicas = [each for each in self.servers.replicas(name) if each.is_up]
        if not self.servers.is_master_of_shard(name) or not replicas:
            return
        chosen = self.chance.choice(replicas).name
        self.servers.promote(chosen, self.now)
        for each in self.servers.replicas(name):
            self.after(self.chance.uniform(0.1, 8.0), self._follow, each.name, name, chosen)
        if self.chance.random() < 0.5:
            self.stop_server(name, self.chance.choice((5.0, 60.0, 400.0)))
        self._separate(name)
        self.after(self.chance.choice((2.0, 30.0, 500.0)), self._follow, name, "", chosen)
        self.changed(self.servers[name].group)

    def give_role(self, name: str, chosen: str) -> None:
        """Master and replica change places. The other replicas stay below the former master for now."""
        self.servers.promote(chosen, self.now)
        self.replicate(name, chosen)

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
        """A former master that nothing of its shard copies any more is a shard of its own at last, until it follows."""
        server = self.servers[name]
        if not server.is_up or not self.servers.is_abandoned(name):
            return
        seconds = FORMER_SECONDS - (self.now - server.deposed_at).total_seconds()
        if seconds > 0:
            self.after(seconds, self._separate, name)
        else:
            self.servers.leave(name, self._new_group(name))

    def replicate(self, name: str, master: str) -> None:
        """The server becomes a replica."""
        self.changed(self.servers[name].group)
        self.servers.follow(name, master, self.now)
        self.changed(self.servers[name].group)

    def leave_shard(self, name: str) -> None:
        """The replica becomes a master of its own."""
        self.changed(self.servers[name].group)
        self.servers.leave(name, self._new_group(name))
        self.changed(self.servers[name].group)

    def _new_group(self, name: str) -> str:
        self._numbers += 1
        return f"{name} {self._numbers}"

    def _beat(self, name: str) -> None:
        agent, state = self.agents[name], self.state_of(name)
        if not agent.is_heard or self.reported[name][1] == state:
            return
        self._carry(self._take_heartbeat, name, self.inventory_of(name), state)
        self.after(BEAT_SECONDS, self._beat, name)  # if the wire loses it
