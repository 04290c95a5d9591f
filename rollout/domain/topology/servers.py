"""The servers of the fleet, as their nodes describe them. A node may lie."""

from dataclasses import dataclass, replace

from rollout.messages import MOST_REPLICAS, Replication, ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another server, as a server names it: by its `host:port`, by its cluster node id, or by both."""

    address: str = ""
    node_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What a node reports about its server's place. `role`: `master`, `replica`, or empty if it is not known.

    `replicas`: those that are connected, or that the cluster knows. `unnamed`: how many more there are. `addresses`: those
    under which others may know the server.
    """

    role: str = ""
    master: Peer | None = None
    replicas: tuple[Peer, ...] = ()
    unnamed: int = 0
    node_id: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server of a node. `host`: the machine or container of the node. `address`: the one that a person has set; it
    replaces those that the node reports."""

    node: str
    host: str = ""
    address: str = ""
    facts: ServerFacts = ServerFacts()


def replication_of(state: ServerState) -> Replication:
    """Return the server's place by its own INFO."""
    replicas = sorted(each.address for each in state.replicas)
    return Replication(role=state.role, master=state.master, replicas=tuple(replicas[:MOST_REPLICAS]))


def facts_of(state: ServerState) -> ServerFacts:
    """Return the facts that places are computed from."""
    named = tuple(Peer(address=each) for each in sorted({each.address for each in state.replicas}))
    facts = ServerFacts(
        role=state.role, replicas=named, unnamed=max(0, (state.replica_count or 0) - len(state.replicas))
    )
    return replace(facts, master=Peer(address=state.master)) if state.role == "replica" else facts
