"""The servers of the fleet, as their nodes describe them. A node may lie. All addresses are canonical."""

from dataclasses import dataclass

from rollout.domain.topology.addresses import canonical
from rollout.messages import MOST_REPLICAS, Replication, ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another server, as a server names it: by its `host:port`, by its cluster node id, or by both."""

    address: str = ""
    node_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What a node reports about its server's place. `role`: `master`, `replica`, or empty if it is not known.

    `replicas`: addresses of those that are connected. `unnamed`: how many more there are. `replica_ids`: cluster node ids
    of all that the cluster knows. `addresses`: those by which other servers may know this one. `network`: where its loopback
    addresses mean it. `replication_id`: that of its shard.
    """

    role: str = ""
    master: Peer | None = None
    replicas: tuple[str, ...] = ()
    unnamed: int = 0
    replica_ids: tuple[str, ...] = ()
    node_id: str = ""
    addresses: tuple[str, ...] = ()
    network: str = ""
    replication_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server of a node. `address`: the one that a person has set; it replaces those that the node reports."""

    node: str
    address: str = ""
    facts: ServerFacts = ServerFacts()


def replication_of(state: ServerState) -> Replication:
    """Return the server's place by its own INFO, also from an agent that does not send it."""
    if state.replication is not None:
        return state.replication
    replicas = sorted(each.address for each in state.replicas)
    return Replication(role=state.role, master=state.master, replicas=tuple(replicas[:MOST_REPLICAS]))


def facts_of(state: ServerState) -> ServerFacts:
    """Return the facts that places are computed from."""
    replication = replication_of(state)
    replicas = {*map(canonical, (*(each.address for each in state.replicas), *replication.replicas))}
    # Not from short lists: a server also counts clients that it does not list.
    is_cut = len(replicas) >= MOST_REPLICAS or state.replication is None
    unnamed = (state.replica_count or 0) - len(replicas) - (state.backups or 0)
    master = Peer(address=canonical(replication.master), node_id=state.master_node_id)
    return ServerFacts(
        role=replication.role if replication.role in {"master", "replica"} else "",
        master=master if replication.role == "replica" else None,
        replicas=tuple(sorted(replicas)),
        unnamed=max(0, unnamed) if is_cut else 0,
        replica_ids=tuple(sorted(state.replica_node_ids)),
        node_id=state.node_id,
        addresses=tuple(sorted({*map(canonical, state.addresses)})),
        network=state.network,
        replication_id=state.replication_id,
    )
