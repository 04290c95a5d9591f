"""What happens to nodes: they join, die, fall silent and come back; and what people do to them."""

from typing import Any

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
from rollout.models import Liveness
from rollout.process.placements import end_of_decommissioned
from tests.simulation.agents import Agent
from tests.simulation.control_plane import BEAT_SECONDS, MODULE
from tests.simulation.orders import Disk
from tests.simulation.server_faults import ServerFaults


class Nodes(ServerFaults):
    """The nodes of the fleet, and what becomes of them."""

    def join(self, name: str, disk: Disk | None = None, **server: Any) -> None:
        """Add a node. `server`: of `Servers.add`."""
        self.servers.add(name, **server)
        self.agents[name] = Agent(self, name, disk)
        self._liveness[name] = Liveness(node=name, interval_seconds=BEAT_SECONDS)
        self.record(self._command_node(enrolment_of(name)))
        self.heartbeat(name, hello=True)
        self.tell_of(name)

    def heartbeat(self, name: str, *, hello: bool = False) -> None:
        """A heartbeat that arrives at once. The others, every `BEAT_SECONDS`, are played only if they tell something new."""
        if hello:
            self.hello_at[name] = self.now
        inventory, state = self.inventory_of(name), self.state_of(name)
        self._take_heartbeat(name, inventory, state, hello)

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
