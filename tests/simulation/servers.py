"""The servers of the nodes as they really are: roles, shards and hosts. The control plane learns of them by heartbeats."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from rollout.messages import Replica, Replication, ServerProblem, ServerState

NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Server:
    """`master`: the node whose server it copies, empty for a master. `group`: the shard that it belongs to, also while its
    replicas do not follow a failover yet. `host` and `zone`: of its node. `is_up`: it answers. `loads` and `backups`: how
    many reasons it has to be not ready. `moved_at`: when the roles in its shard last changed."""

    name: str
    group: str
    master: str = ""
    host: str = ""
    zone: str = ""
    is_up: bool = True
    loads: int = 0
    backups: int = 0
    moved_at: datetime = NEVER

    @property
    def address(self) -> str:
        return f"{self.name}:6379"


class Servers:
    """All servers, by node."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}

    def __getitem__(self, name: str) -> Server:
        return self._servers[name]

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers.values())

    def add(self, name: str, *, master: str = "", host: str = "", zone: str = "") -> None:
        group = self[master].group if master else name
        self._servers[name] = Server(name, group, master=master, host=host or f"host of {name}", zone=zone)

    def replicas(self, name: str) -> list[Server]:
        """Return the servers that copy this one directly."""
        return [each for each in self if each.master == name]

    def move(self, group: str, now: datetime) -> None:
        """Note that roles in the shard change."""
        for each in self:
            if each.group == group:
                each.moved_at = now

    def below(self, name: str) -> list[Server]:
        """Return the servers that copy this one, directly or through others."""
        found = []
        for each in self.replicas(name):
            found += [each, *self.below(each.name)]
        return found

    def above(self, name: str) -> list[Server]:
        """Return its master, the master of that, and so on."""
        server, found = self[name], []
        while server.master:
            server = self[server.master]
            found.append(server)
        return found

    def top(self, name: str) -> str:
        """Return the master at the top of its shard."""
        return (self.above(name) or [self[name]])[-1].name

    def follow(self, name: str, master: str) -> None:
        """Make the server a replica. Do nothing if it would copy itself."""
        if name != master and name not in {each.name for each in self.above(master)}:
            self[name].master = master
            self.regroup(name, self[master].group)

    def leave(self, name: str, group: str) -> None:
        """Make the server a master with its own replicas. `group`: the name of its shard from now on."""
        self[name].master = ""
        self.regroup(name, group)

    def regroup(self, name: str, group: str) -> None:
        for each in (self[name], *self.below(name)):
            each.group = group

    def state(self, name: str) -> ServerState:
        """Return what its agent sees of it."""
        server = self[name]
        if not server.is_up:
            return ServerState(problem=ServerProblem.SERVER_UNREACHABLE, message="The server cannot be reached.")
        connected = [each for each in self.replicas(name) if each.is_up]
        master = self[server.master] if server.master else None
        replication = Replication(
            role="replica" if master else "master",
            master=master.address if master else "",
            replicas=tuple(sorted(each.address for each in connected)),
        )
        return ServerState(
            run_id=name,
            role=replication.role,
            master=replication.master,
            replication=replication,
            link_status=("up" if master.is_up else "down") if master else "",
            replicas=tuple(Replica(address=each.address) for each in connected),
            replica_count=len(connected),
            loading=server.loads > 0,
            async_loading=False,
            master_sync_in_progress=False if master else None,
            cluster_enabled=False,
            backups=server.backups,
            addresses=(server.address,),
        )
