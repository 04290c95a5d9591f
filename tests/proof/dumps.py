"""What each server has in the end, read over a connection of our own."""

from functools import partial
from pathlib import Path
from typing import Any

import redis

from modfleet.proof.history import Dump, write_dump
from tests.proof.packages import MODULES
from tests.proof.topologies import Site
from tests.shards import Machine
from tests.waiting import wait_for

#: The keys that are read in one go.
BATCH = 1000


def dump(folder: Path, moment: str, site: Site, control: Machine) -> None:
    """Write what each server has, once it serves, and each replica has all of its master."""
    masters = {each.port: each for each in site.machines}
    for each in site.machines:
        wait_for(partial(_is_ready, each, masters))
    for each in (*site.machines, control):
        master = masters.get(each.master_port())
        with redis.Redis(unix_socket_path=str(each.socket), decode_responses=True, protocol=2) as client:
            modules = _modules(client)
            found = Dump(server=each.folder.name, master=master.folder.name if master else "", modules=modules)
            write_dump(folder, moment, found, _keys(client, modules))


def _is_ready(machine: Machine, masters: dict[int, Machine]) -> bool:
    try:
        if machine.info("cluster")["cluster_enabled"] and machine.call("CLUSTER INFO")["cluster_state"] != "ok":
            return False
        port = machine.master_port()
        return machine.answers() and (not port or machine.is_in_step(masters[port]))
    except redis.RedisError:
        return False


def _modules(client: Any) -> dict[str, str]:
    loaded = [each["name"] for each in client.execute_command("MODULE LIST") if each["name"] in MODULES]
    return {name: client.execute_command(f"{name}.ask")[1] for name in sorted(loaded)}


def _keys(client: Any, modules: dict[str, str]) -> dict[str, tuple[int, ...]]:
    """The entries of each key. The key of a module that was removed is read as the string that it is."""
    is_clustered = client.info("cluster")["cluster_enabled"]
    names = sorted(client.scan_iter(count=BATCH))
    found: dict[str, tuple[int, ...]] = {}
    for start in range(0, len(names), BATCH):
        some = names[start : start + BATCH]
        with client.pipeline(transaction=False) as pipe:
            if is_clustered:
                pipe.execute_command("READONLY")  # so that a replica answers, and not its master
            for key in some:
                module = key.split(":")[0]
                pipe.execute_command(*([f"{module}.get", key] if module in modules else ["GET", key]))
            answers = pipe.execute()[is_clustered:]
        for key, answer in zip(some, answers, strict=True):
            text = answer if isinstance(answer, str) else answer[2]
            found[key] = tuple(map(int, text.split(",")))
    return found
