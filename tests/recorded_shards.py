"""Heartbeats of nodes in shards, in the database alone: what each server says about its master and its replicas."""

from typing import Any

from rollout.delivery import ingestion
from rollout.messages import Capability, Replica, Replication, ServerState
from rollout.models import ShardMember
from rollout.signing import PROTOCOL
from tests.recorded_fleet import heartbeat_of

READY: dict[str, Any] = {"loading": False, "async_loading": False, "cluster_enabled": False, "backups": 0}


def beat(name: str, state: ServerState | None = None, *, host: str = "", **more: Any) -> dict[str, Any]:
    """A heartbeat with this state of its server; without one, of a master without replicas."""
    seen = state or master_of()
    agent = {"host": host, "protocol": PROTOCOL, "capabilities": sorted(Capability)}
    return heartbeat_of(name, **{"role": seen.role, "facts": seen, **more}) | agent


def say(*beats: dict[str, Any]) -> None:
    ingestion.record_heartbeats(beats)


def master_of(*replicas: str, **more: Any) -> ServerState:
    """`replicas`: addresses, `host:port`."""
    names = tuple(sorted(replicas))
    state: dict[str, Any] = {
        "role": "master",
        "replicas": tuple(Replica(address=each) for each in names),
        "replica_count": len(names),
        "replication": Replication(role="master", replicas=names),
    }
    return ServerState(**{**READY, **state, **more})


def replica_of(master: str, *replicas: str, **more: Any) -> ServerState:
    """`master` and `replicas`: addresses, `host:port`."""
    names = tuple(sorted(replicas))
    state: dict[str, Any] = {
        "role": "replica",
        "master": master,
        "link_status": "up",
        "master_sync_in_progress": False,
        "replicas": tuple(Replica(address=each) for each in names),
        "replica_count": len(names),
        "replication": Replication(role="replica", master=master, replicas=names),
    }
    return ServerState(**{**READY, **state, **more})


def member(name: str) -> ShardMember:
    return ShardMember.objects.get(node=name)
