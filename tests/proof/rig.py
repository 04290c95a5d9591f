"""What stands between the parts of a run, so that faults can reach them: proxies, disks and clocks.

Each server is reached at 127.0.0.2, where a proxy listens at the server's own port. So clients, replicas, Sentinels and the agents
of other servers all go through the link of that server.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.fleet import Fleet, remove_folder, short_folder
from tests.proof import disk
from tests.proof.clocks import Clock, compiled
from tests.proof.disk import Disk
from tests.proof.proxy import Link, Proxies
from tests.shards import Machine

#: Leads to this machine too, and Modfleet does not know that.
REACHED, HOST = "0x7f.2", "127.0.0.2"


@dataclass(frozen=True)
class Parts:
    """What can be hurt at one machine. `server`: the link to its server. `broker`, `api`: the links of its agent."""

    server: Link
    broker: Link
    api: Link
    disk: Disk
    server_clock: Clock
    agent_clock: Clock


@dataclass(frozen=True)
class Rig:
    """`control_clock` is the clock of the control plane, if it was started with its environment."""

    proxies: Proxies
    folder: Path
    library: Path
    control_clock: Clock
    _stack: ExitStack
    #: By the name of the machine.
    parts: dict[str, Parts] = field(default_factory=dict)
    #: Held by who hurts the control plane, which several topologies share.
    control: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self, fleet: Fleet, machine: Machine) -> None:
        """Put the machine on the rig. Its server and its agent have not been started yet."""
        link = self.proxies.link
        self._stack.callback(_remove, machine.folder)
        port = int(fleet.url.rpartition(":")[2])
        made = self.parts[machine.name] = Parts(
            server=link(("127.0.0.1", machine.port), host=HOST, port=machine.port),
            broker=link(str(fleet.folder / "broker/valkey.sock")),
            api=link(("127.0.0.1", port)),
            disk=self._stack.enter_context(Disk(machine.folder)),
            server_clock=self._clock(f"{machine.name}-server"),
            agent_clock=self._clock(f"{machine.name}-agent"),
        )
        machine.reached = REACHED
        machine.environ = {**machine.environ, **made.server_clock.environ}
        machine.settings = {
            **machine.settings,
            **made.agent_clock.environ,
            "MODFLEET_BROKER_URL": f"redis://127.0.0.1:{made.broker.port}",
            "MODFLEET_CONTROL_URL": f"http://127.0.0.1:{made.api.port}",
        }
        machine.extra = [*machine.extra, "bind 127.0.0.1", *self._cluster_lines(machine)]

    def _cluster_lines(self, machine: Machine) -> Iterator[str]:
        """The bus of a cluster goes through a proxy too, which stays whole."""
        for each in machine.extra:
            name, _, port = each.partition(" ")
            if name == "cluster-port":
                self.proxies.link(("127.0.0.1", int(port)), host=HOST, port=int(port))
                yield f"cluster-announce-ip {HOST}"

    def heal(self, machines: Sequence[Machine]) -> None:
        """All of these machines works again."""
        for each in machines:
            parts = self.parts[each.name]
            for link in (parts.server, parts.broker, parts.api):
                link.heal()
            parts.disk.free()
            for clock in (parts.server_clock, parts.agent_clock):
                clock.set(0)

    def _clock(self, name: str) -> Clock:
        return Clock(self.folder / f"{name}.clock", self.library)


def _remove(folder: Path) -> None:
    """Remove the place of a disk, and the folder that had all of them."""
    for each in (folder, folder.parent):
        with suppress(OSError):  # a disk is still there
            each.rmdir()


@contextmanager
def on_rig(folder: Path) -> Iterator[Rig]:
    """The process is in mounts of its own: see `disk.enter`. `folder` exists."""
    library = compiled(folder)
    with Proxies() as proxies, ExitStack() as stack:
        yield Rig(proxies, folder, library, Clock(folder / "control.clock", library), stack)


@contextmanager
def new_rig() -> Iterator[Rig]:
    """Move this process, which has one thread, to mounts of its own, and put up a rig there."""
    disk.enter()
    folder = short_folder()
    try:
        with on_rig(folder) as made:
            yield made
    finally:
        remove_folder(folder)
