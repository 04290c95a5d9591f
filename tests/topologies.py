"""Shards and clusters of real servers with real agents, ready for rollouts."""

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from tests.fleet import PAUSE, Fleet, remove_folder, short_folder
from tests.ports import free_port
from tests.shards import Machine, Shard, machines
from tests.waiting import wait_for

#: The agents may restart their servers, by SHUTDOWN; what stands for systemd starts them again.
RESTARTING = {
    "MODFLEET_BEAT_SECONDS": "1",
    "MODFLEET_ACCESS": "restart",
    "MODFLEET_RESTART": "shutdown",
}

#: What is done with each machine before it starts.
Prepare = Callable[[Machine], None]


def as_it_is(machine: Machine) -> None:
    """Change nothing."""


def trio(control: Fleet, prefix: str, binary: Path, save: str = '""', **settings: str) -> AbstractContextManager[Shard]:
    """A master `a`, and its replicas `b` and `c`, by default without persistence."""
    return replicated(control, prefix, binary, "abc", [f"save {save}"], {"MODFLEET_PERSISTENCE": "rewrite", **settings})


@contextmanager
def replicated(
    control: Fleet,
    prefix: str,
    binary: Path,
    letters: str,
    lines: Sequence[str],
    settings: Mapping[str, str],
    prepare: Prepare = as_it_is,
) -> Iterator[Shard]:
    """A master with the first letter, and its replicas. `lines`: of the configuration of each server."""
    folder = short_folder()
    made = [
        Machine(f"{prefix}-{each}", folder / each, binary, extra=lines, settings={**RESTARTING, **settings})
        for each in letters
    ]
    try:
        for each in made:
            prepare(each)
        with machines(control, made):
            a, *replicas = made
            for each in replicas:
                each.follow(a)
            for each in made:
                wait_for(partial(each.is_in_step, a))
                each.call("CONFIG", "REWRITE")
            shard = Shard(control, made)
            wait_for(lambda: shard.masters() == {a.name: "", **{each.name: a.name for each in replicas}}, pause=PAUSE)
            yield shard
        for each in made:
            control.post(f"/v2/nodes/{each.name}/decommission", status=200)
    finally:
        remove_folder(folder)


@contextmanager
def cluster(
    control: Fleet, prefix: str, binary: Path, lines: Sequence[str] = (), prepare: Prepare = as_it_is, **settings: str
) -> Iterator[Shard]:
    """Three masters `a`, `b` and `c`, each with a replica: `d`, `e` and `f`."""
    folder = short_folder()
    settings = {**RESTARTING, "MODFLEET_FAILOVER": "cluster", **settings}
    made = [
        Machine(
            f"{prefix}-{each}",
            folder / each,
            binary,
            extra=["cluster-enabled yes", f"cluster-port {free_port()}", *lines],
            settings=settings,
        )
        for each in "abcdef"
    ]
    try:
        for each in made:
            prepare(each)
        with machines(control, made):
            masters, replicas = made[:3], made[3:]
            bus = masters[0].call("CONFIG", "GET", "cluster-port")[1]
            for each in made[1:]:
                each.call("CLUSTER", "MEET", socket.gethostbyname(made[0].reached), made[0].port, bus)
            for number, each in enumerate(masters):
                each.call("CLUSTER", "ADDSLOTSRANGE", number * 5461, (number + 1) * 5461 - (number < 2))
            wait_for(lambda: all(each.call("CLUSTER INFO")["cluster_known_nodes"] == "6" for each in made))
            for master, replica in zip(masters, replicas, strict=True):
                replica.call("CLUSTER", "REPLICATE", master.call("CLUSTER", "MYID"))
            wait_for(lambda: all(each.call("CLUSTER INFO")["cluster_state"] == "ok" for each in made))
            wait_for(lambda: all(each.call("CLUSTER", "NODES").count("slave") == 3 for each in made))
            wait_for(lambda: all(each.info("replication").get("master_link_status") == "up" for each in replicas))
            shard = Shard(control, made)
            names = {each.name: "" for each in masters}
            names |= {replica.name: master.name for master, replica in zip(masters, replicas, strict=True)}
            wait_for(lambda: shard.masters() == names, pause=PAUSE)
            yield shard
        for each in made:
            control.post(f"/v2/nodes/{each.name}/decommission", status=200)
    finally:
        remove_folder(folder)
