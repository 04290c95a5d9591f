"""The topologies of scenarios that `make prove` does not have."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.fleet import PAUSE, Fleet
from tests.proof.packages import MODULES
from tests.proof.topologies import LINES, PATIENT, Site, plain
from tests.topologies import replicated
from tests.waiting import wait_for

#: `(fleet, prefix of the nodes' names, program of the servers)`.
Topology = Callable[[Fleet, str, Path], AbstractContextManager[Site]]


@contextmanager
def untried(fleet: Fleet, prefix: str, binary: Path) -> Iterator[Site]:
    """One server. Its agent tries no module in a scratch server."""
    settings = {**PATIENT, "MODFLEET_PERSISTENCE": "include", "MODFLEET_SCRATCH": "off"}
    with replicated(fleet, prefix, binary, "a", LINES, settings) as shard:
        yield Site(shard, plain(shard), [*MODULES])


@contextmanager
def chain(fleet: Fleet, prefix: str, binary: Path) -> Iterator[Site]:
    """A master `a` with the replicas `b` and `c`, and `d`, a replica of `b`."""
    with replicated(fleet, prefix, binary, "abcd", LINES, {**PATIENT, "MODFLEET_PERSISTENCE": "rewrite"}) as shard:
        a, b, c, d = shard.machines
        d.follow(b)
        wait_for(lambda: d.is_in_step(a))
        d.call("CONFIG", "REWRITE")
        masters = {a.name: "", b.name: a.name, c.name: a.name, d.name: b.name}
        wait_for(lambda: shard.masters() == masters, pause=PAUSE)
        yield Site(shard, plain(shard), [*MODULES])
