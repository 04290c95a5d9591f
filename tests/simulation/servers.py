"""The servers as they really are: roles, shards and hosts. The control plane learns of them by heartbeats.

Each server notes when the control plane could first know of its place: rules judge by that, and by nothing else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rollout.agent.inspection.start_lines import StartLines
from rollout.messages import CHILD_WORKS, Replica, Replication, ServerProblem, ServerState

NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a server is, whatever happens to it.

    `is_stock`: it refuses MODULE LOAD. `keeps`: what keeps its data on disk, `aof`, `save` or nothing. `min_replicas`: it
    accepts writes only with so many good replicas. `restart`: how its agent restarts it, or `none`; with `command`, nothing but
    its agent starts it again. `keeps_role`: its file always has its role, as under a Sentinel.
    `failover`: how its agent makes a replica the master, or `none`.
    """

    is_stock: bool = False
    keeps: str = "aof"
    min_replicas: int = 0
    restart: str = "shutdown"
    keeps_role: bool = True
    failover: str = "none"


@dataclass(slots=True)
class Server:
    """`master`: the server that it copies, empty for a master. `group`: the shard that it belongs to, also while it does not
    follow a failover yet. `host` and `zone`: of its node. `is_node`: it has an agent. `claims`: other addresses that it says
    are its own. `is_away`: it cannot be reached. `is_ended`: it has no process; `process`: the number of the newest one.
    `load_seconds`: how long the next one loads its data.
    `pauses` and `ended_pauses`: how often the writes of its clients had to wait, and how often they went on.
    `starts_below`: the server that it copies after a start. `saves`: child processes that save its data. `loads` and `backups`: how many reasons it has to be not ready. `link_told_at` and
    `member_told_at`: when its present master, and that it belongs to its shard, were reported; None if not yet.
    `linked_at`: when it began to copy its master. `said_at`: when that was last reported by its own node, if it has one. `deposed_at`: when another server took its place as the master of the
    shard."""

    name: str
    group: str
    master: str = ""
    host: str = ""
    zone: str = ""
    is_node: bool = True
    claims: tuple[str, ...] = ()
    traits: Traits = Traits()
    is_away: bool = False
    is_ended: bool = False
    process: int = 0
    load_seconds: float = 0.0
    pauses: int = 0
    ended_pauses: int = 0
    starts_below: str = ""
    saves: int = 0
    loads: int = 0
    backups: int = 0
    link_told_at: datetime | None = None
    member_told_at: datetime | None = None
    deposed_at: datetime = NEVER
    linked_at: datetime = NEVER
    said_at: datetime = NEVER

    @property
    def address(self) -> str:
        return address_of(self.name)

    @property
    def is_up(self) -> bool:
        return not (self.is_away or self.is_ended)

    @property
    def run_id(self) -> str:
        return f"{self.name} {self.process}"

    @property
    def is_paused(self) -> bool:
        return self.pauses > self.ended_pauses

    @property
    def is_ready(self) -> bool:
        return self.is_up and not self.loads and not self.backups


def address_of(name: str) -> str:
    return f"{name}:6379" if name else ""


class Servers:
    """All servers, by name. The server of a node has the node's name."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}
        #: The master of each shard, as people or a Sentinel see it: a former one may be a master too.
        self._masters: dict[str, str] = {}

    def __getitem__(self, name: str) -> Server:
        return self._servers[name]

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers.values())

    def add(self, name: str, *, master: str = "", host: str = "", **more: Any) -> None:
        """`more`: other fields of `Server`."""
        group = self[master].group if master else name
        host = host or f"host of {name}"
        self._servers[name] = Server(name, group, master=master, starts_below=master, host=host, **more)
        self._masters.setdefault(group, name)

    # --- Who copies whom

    def replicas(self, name: str) -> list[Server]:
        """Return the servers that copy this one directly."""
        return [each for each in self if each.master == name]

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

    def is_master_of_shard(self, name: str) -> bool:
        return self._masters[self[name].group] == name

    def is_abandoned(self, name: str) -> bool:
        """Return True if it is a former master, and nothing of its shard copies it any more."""
        server = self[name]
        is_former = not server.master and not self.is_master_of_shard(name)
        return is_former and all(each.linked_at > server.deposed_at for each in self.replicas(name))

    # --- What changes

    def promote(self, name: str, now: datetime) -> None:
        """Make a replica the master of its shard."""
        server = self[name]
        self[self._masters[server.group]].deposed_at = now
        self._masters[server.group] = name
        self._copy(server, "")

    def _copy(self, server: Server, master: str) -> None:
        server.master, server.link_told_at = master, None
        if server.traits.keeps_role:
            server.starts_below = master

    def follow(self, name: str, master: str, now: datetime) -> None:
        """Make the server a replica. Do nothing if it would copy itself."""
        if name != master and name not in {each.name for each in self.above(master)}:
            self._copy(self[name], master)
            self[name].linked_at = now
            self.regroup(name, self[master].group)

    def leave(self, name: str, group: str) -> None:
        """Make the server a master with its own replicas. `group`: the name of its shard from now on."""
        self._copy(self[name], "")
        self._masters[group] = name
        self.regroup(name, group)

    def regroup(self, name: str, group: str) -> None:
        for each in (self[name], *self.below(name)):
            if each.group != group:
                each.group, each.member_told_at = group, None

    # --- What is seen of them

    def told(self, name: str, state: ServerState, now: datetime) -> None:
        """Note what a heartbeat has told of the present: whom the server copies, and who copies it."""
        listed = {each.address for each in state.replicas}
        links = [each for each in self.replicas(name) if each.address in listed]
        if state.role and state.master == address_of(self[name].master):
            links.append(self[name])
        for each in links:
            each.link_told_at = each.link_told_at or now
            if each.name == name or not each.is_node:  # a node's own word counts for its shard, not a master's list
                each.said_at = now
        for each in self:
            is_top = not each.master and each.linked_at != NEVER  # promoted before it was known as a replica
            if (
                each.member_told_at is None
                and not is_top
                and all(one.said_at >= one.linked_at for one in self._path(each))
            ):
                each.member_told_at = now

    def forget(self, name: str) -> None:
        """The node has joined again, and its server is away: the control plane does not know its place any more."""
        server = self[name]
        server.link_told_at = server.member_told_at = None
        server.said_at = NEVER

    def _path(self, server: Server) -> list[Server]:
        return [each for each in (server, *self.above(server.name)) if each.master]

    def is_path_told(self, lower: Server, upper: Server, at: datetime) -> bool:
        """Return True if every step from the server up to one that it copies was reported before that time."""
        path = [lower, *self.above(lower.name)]
        return all(each.link_told_at and each.link_told_at <= at for each in path[: path.index(upper)])

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
            run_id=server.run_id,
            role=replication.role,
            master=replication.master,
            replication=replication,
            link_status=("up" if master.is_up else "down") if master else "",
            replicas=tuple(Replica(address=each.address, state=_link(each)) for each in connected),
            replica_count=len(connected),
            loading=server.loads > 0,
            async_loading=False,
            master_sync_in_progress=False if master else None,
            cluster_enabled=False,
            backups=server.backups,
            addresses=(server.address, *server.claims),
            replication_id=self.top(name),
            aof_enabled=server.traits.keeps == "aof",
            save_points="3600 1" if server.traits.keeps == "save" else "",
            enable_module_command="no" if server.traits.is_stock else "yes",
            restart=server.traits.restart,
            restart_problem="It is never restarted." if server.traits.restart == "none" else "",
            failover=server.traits.failover,
            min_replicas_to_write=server.traits.min_replicas,
            save_problem=f"BGSAVE{CHILD_WORKS}" if server.saves else "",
        )

    def info(self, name: str) -> dict[str, str]:
        """Return its INFO, as far as a restart depends on it."""
        server = self[name]
        connected = [each for each in self.replicas(name) if each.is_up]
        return {
            "role": "slave" if server.master else "master",
            **({"master_host": server.master, "master_port": "6379"} if server.master else {}),
            **{f"slave{at}": f"ip={each.name},port=6379,state={_link(each)}" for at, each in enumerate(connected)},
            "aof_enabled": str(int(server.traits.keeps == "aof")),
            "cluster_enabled": "0",
        }

    def start_lines(self, name: str) -> StartLines:
        """Return what its next start reads."""
        master = self[name].starts_below
        return StartLines(replicaof=(master, "6379") if master else ())


def _link(replica: Server) -> str:
    """Return the state of a replica that is connected, as its master sees it."""
    return "send_bulk" if replica.loads else "online"
