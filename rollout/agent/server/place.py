"""A server's place in its shard: replication, cluster, slot migrations, and the names by which other servers know it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from rollout.agent.server.texts import address, number, storable, word
from rollout.messages import MOST_MIGRATIONS, MOST_REPLICAS, Replica, Replication, SlotMigration

#: The states of an atomic slot migration that has ended.
_ENDED = {"success", "failed", "canceled", "cancelled"}
#: Limit of a list of slots in words, characters.
LONGEST_SLOTS = 100
LAST_SLOT = 16_383


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """A line of CLUSTER NODES. `names`: each `host:port`. `master`: a node id, empty for a master. `moves`: its brackets."""

    id: str
    names: tuple[str, ...]
    is_myself: bool
    master: str
    moves: tuple[tuple[int, str, str], ...]


def role(info: Mapping[str, str]) -> str:
    return {"master": "master", "slave": "replica"}.get(info.get("role", ""), "")


def master(info: Mapping[str, str]) -> str:
    """Return `host:port` of a replica's master, empty for a master."""
    return address(info.get("master_host", ""), info.get("master_port", "")) if role(info) == "replica" else ""


def replication(info: Mapping[str, str]) -> Replication:
    names = sorted(each.address for each in replicas(info))
    return Replication(role=role(info), master=master(info), replicas=tuple(names[:MOST_REPLICAS]))


def replicas(info: Mapping[str, str]) -> Iterator[Replica]:
    """Yield the replicas, without clients that only copy the data."""
    offset = number(info.get("master_repl_offset"))
    for fields in _followers(info):
        if fields.get("port") == "0":
            continue
        at = number(fields.get("offset"))
        yield Replica(
            address=address(fields.get("ip", ""), fields.get("port", "")),
            state=word(fields.get("state", "")),
            lag_bytes=None if offset is None or at is None else max(0, offset - at),
        )


def backups(info: Mapping[str, str]) -> int | None:
    """Return how many clients only copy the data, such as `redis-cli --rdb`: they have no port."""
    if not role(info):
        return None
    return sum(fields.get("port") == "0" for fields in _followers(info))


def cluster_nodes(answer: object) -> list[ClusterNode]:
    """Return the lines of CLUSTER NODES. Each is `id ip:port@bus[,hostname] flags master ping pong epoch link slots...`."""
    nodes = []
    for line in str(answer).splitlines():
        fields = line.split()
        if len(fields) < 8:
            continue
        endpoint, _, rest = fields[1].partition("@")
        host, _, port = endpoint.rpartition(":")
        hosts = [host, *(each for each in rest.split(",")[1:2] if "=" not in each)]
        nodes.append(
            ClusterNode(
                id=storable(fields[0])[:64],
                names=tuple(address(each, port) for each in hosts if each and port != "0"),
                is_myself="myself" in fields[2].split(","),
                master="" if fields[3] == "-" else storable(fields[3])[:64],
                moves=tuple((int(slot), way, peer) for slot, way, peer in re.findall(r"\[(\d+)-([<>])-(\w+)\]", line)),
            )
        )
    return nodes


def moving_slots(
    nodes: Iterable[ClusterNode], jobs: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, str, bool], set[int]]:
    """Return the slots on their way, by source, target, and if the migration is atomic.

    The server shows brackets only in its own line. Since Valkey 8, a replica shows those of its master. `jobs`: the
    answers of CLUSTER GETSLOTMIGRATIONS.
    """
    nodes = list(nodes)
    names = {each.id: next(iter(each.names), each.id) for each in nodes}
    moving: dict[tuple[str, str, bool], set[int]] = {}
    for node in nodes:
        owner = node.master or node.id
        for slot, way, peer in node.moves:
            source, target = (owner, peer) if way == ">" else (peer, owner)
            moving.setdefault((names.get(source, source), names.get(target, target), False), set()).add(slot)
    for job in jobs:
        if str(job.get("state", "")).lower() not in _ENDED:
            source, target = str(job.get("source_node", "")), str(job.get("target_node", ""))
            key = (names.get(source, source), names.get(target, target), True)
            moving.setdefault(key, set()).update(_slots(str(job.get("slot_ranges", ""))))
    return moving


def migrations(moving: Mapping[tuple[str, str, bool], set[int]]) -> tuple[SlotMigration, ...]:
    return tuple(
        SlotMigration(
            slots=_in_words(slots), source=storable(source)[:264], target=storable(target)[:264], atomic=is_atomic
        )
        for (source, target, is_atomic), slots in sorted(moving.items())[:MOST_MIGRATIONS]
    )


def _followers(info: Mapping[str, str]) -> Iterator[dict[str, str]]:
    for key, line in info.items():
        if re.fullmatch(r"slave\d+", key):
            yield dict(pair.partition("=")[::2] for pair in line.split(","))


def _slots(ranges: str) -> set[int]:
    pairs = [each.partition("-") for each in ranges.split()]
    ends = ((int(first), min(int(last or first), LAST_SLOT)) for first, _, last in pairs)
    return set(chain.from_iterable(range(first, last + 1) for first, last in ends))


def _in_words(slots: Iterable[int]) -> str:
    """Return such as `93 100-110`, cut if it is long."""
    ranges: list[tuple[int, int]] = []
    for slot in sorted(slots):
        if ranges and ranges[-1][1] == slot - 1:
            ranges[-1] = ranges[-1][0], slot
        else:
            ranges.append((slot, slot))
    text = " ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
    return text if len(text) <= LONGEST_SLOTS else f"{text[:LONGEST_SLOTS].rpartition(' ')[0]} ..."
