"""The topologies of a proof, and how their clients reach them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modfleet.proof.paths import AnyPath, ClusterPath, PlainPath, SentinelPath
from tests.fleet import Fleet, remove_folder, short_folder
from tests.ports import free_port
from tests.proof.packages import MODULES
from tests.shards import ADDRESS, Machine, Shard, sentinel
from tests.topologies import Prepare, as_it_is, cluster, replicated
from tests.waiting import wait_for


@dataclass(frozen=True)
class Site:
    """Servers with their agents. A server's name is that of its directory."""

    shard: Shard
    path: AnyPath
    #: Without those that need another one where CONFIG REWRITE writes the lines: the agent refuses them there, because CONFIG REWRITE
    #: writes modules in any order.
    modules: Sequence[str]

    @property
    def machines(self) -> Sequence[Machine]:
        return self.shard.machines

    @property
    def servers(self) -> tuple[str, ...]:
        return tuple(each.folder.name for each in self.machines)


#: Save points, as a server has them whose data must survive a restart.
LINES = ("save 3600 1",)
#: Clients, servers and agents share a small machine, and after three heartbeats without a word a rollout waits for a person.
PATIENT = {"MODFLEET_BEAT_SECONDS": "3"}
#: `(fleet, prefix of the nodes' names, program of the servers, further lines of their configuration, what is done with each machine)`.
Topology = Callable[[Fleet, str, Path, Sequence[str], Prepare], AbstractContextManager[Site]]


@contextmanager
def standalone(
    fleet: Fleet, prefix: str, binary: Path, lines: Sequence[str] = (), prepare: Prepare = as_it_is
) -> Iterator[Site]:
    settings = {**PATIENT, "MODFLEET_PERSISTENCE": "include"}
    with replicated(fleet, prefix, binary, "a", [*LINES, *lines], settings, prepare) as shard:
        yield Site(shard, plain(shard), [*MODULES])


@contextmanager
def replicas(
    fleet: Fleet, prefix: str, binary: Path, lines: Sequence[str] = (), prepare: Prepare = as_it_is
) -> Iterator[Site]:
    """A master with two replicas. Its clients ask one server after the other until one accepts their command."""
    settings = {**PATIENT, "MODFLEET_PERSISTENCE": "rewrite", "MODFLEET_FAILOVER": "command"}
    with replicated(fleet, prefix, binary, "abc", [*LINES, *lines], settings, prepare) as shard:
        yield Site(shard, plain(shard), unordered())


@contextmanager
def watched(
    fleet: Fleet, prefix: str, binary: Path, lines: Sequence[str] = (), prepare: Prepare = as_it_is
) -> Iterator[Site]:
    """A master with a replica, watched by a Sentinel."""
    port = free_port()
    settings = {
        **PATIENT,
        "MODFLEET_PERSISTENCE": "rewrite",
        "MODFLEET_FAILOVER": "sentinel",
        "MODFLEET_SENTINEL_URLS": json.dumps([f"redis://{ADDRESS}:{port}"]),
        "MODFLEET_SENTINEL_MASTER": "main",
    }
    folder = short_folder()
    try:
        with (
            replicated(fleet, prefix, binary, "ab", [*LINES, *lines], settings, prepare) as shard,
            sentinel(folder, shard.machines[0], port=port) as watcher,
        ):
            wait_for(lambda: len(watcher.call("SENTINEL", "REPLICAS", "main")) == 1)
            yield Site(shard, SentinelPath(hosts=((ADDRESS, port),), name="main"), unordered())
    finally:
        remove_folder(folder)


@contextmanager
def clustered(
    fleet: Fleet, prefix: str, binary: Path, lines: Sequence[str] = (), prepare: Prepare = as_it_is
) -> Iterator[Site]:
    """Three masters with a replica each."""
    with cluster(fleet, prefix, binary, [*LINES, *lines], prepare, **PATIENT) as shard:
        yield Site(shard, ClusterPath(hosts=tuple((each.reached, each.port) for each in shard.machines)), [*MODULES])


TOPOLOGIES: Mapping[str, Topology] = {
    "standalone": standalone,
    "replicas": replicas,
    "cluster": clustered,
    "sentinel": watched,
}


def plain(shard: Shard) -> PlainPath:
    return PlainPath(urls=tuple(f"redis://{each.reached}:{each.port}" for each in shard.machines))


def unordered() -> list[str]:
    return [name for name, each in MODULES.items() if not each.needs]
