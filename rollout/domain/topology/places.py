"""The place of each node in its shard.

A replica's own word says which server it copies. A master's list says which replicas it has: it may name one that copies
another server by its own word, and it does not name a replica of a replica, or one whose connection is lost. A node that
lies can change only the places of servers that it names. If two nodes say that they are one server, neither is matched, and
all that may copy it or be copied by it are one shard.

A replica that is no node, such as one that was decommissioned, may have replicas that are nodes. They stay in the shard of
the server that lists it, and count as its replicas too: they get its writes. If several such servers follow one another, no node
lists the last one. So its replica also belongs to the master with the same replication id.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from rollout.domain.topology.addresses import is_address
from rollout.domain.topology.directory import Claims, Directory, key_of
from rollout.domain.topology.servers import Peer, Server

#: In place of an address that a server does not tell.
UNKNOWN = "unknown"
#: The most claimants of one place.
MOST_CLAIMANTS = 10
#: A server counts as a replica of so many nodes that say that they are its master.
MOST_MASTERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of one node. `master` and `replicas` are nodes, sorted; the others are addresses. `replicas` also has nodes that
    copy an unmanaged replica, or that name a master of which several nodes say that they are it. `unlisted`: those of them that the
    server itself does not list. `contrary`: those of them that the server lists, but that say that they copy another node or none,
    or that have another replication id.

    `shard`: the node at its top, or the address of a master that is no node; an address contains a colon. One of these, if the
    shards of several nodes may be one. `depth`: 0 for the node at the top, 1 for its
    replicas. `unmanaged`: replicas that are no nodes; the last one may count those that have no name. `ignored`: those
    that a person has accepted. `unmanaged_master`: the master, if it is no node. `doubted`: its master does not bear out that it is
    copied. `claimants`: nodes that say that they are one of these, but are not matched; the first ten.
    """

    shard: str
    role: str
    master: str = ""
    depth: int = 0
    replicas: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    contrary: tuple[str, ...] = ()
    unmanaged: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    unmanaged_master: str = ""
    doubted: bool = False
    claimants: tuple[str, ...] = ()


def places_of(servers: Collection[Server], ignored: Collection[str] = ()) -> dict[str, Place]:
    """Return the place of each node. `ignored`: addresses and cluster node ids. Linear in the number of servers."""
    directory = Directory(servers)
    by_name = {each.node: each for each in servers}
    masters = {each.node: _master_of(each, directory) for each in servers}
    listed = {each.node: _listed(each, directory) for each in servers}
    certain = {
        each.node
        for each in servers
        if (master := masters[each.node][0]) and _bears_out(by_name[master], each, listed[master].nodes)
    }
    through = _further_masters(by_name, masters, listed, certain)
    # A hop of its own for each stranger: no name of a node contains a colon.
    strange = {node: above[0] for node, above in through.items() if not masters[node][0]}
    hops = {f":{node}": above for node, above in strange.items()} | {node: f":{node}" for node in strange}
    tops = _tops({node: master for node, (master, _) in masters.items() if master} | hops)
    own_claims: dict[str, Claims] = {
        each.node: {} if each.node in certain else _master_claims(each, directory) for each in servers
    }
    claims = {node: own.claims | own_claims[node] for node, own in listed.items()}
    copies: dict[str, set[str]] = {each.node: set() for each in servers}
    further: dict[str, set[str]] = {each.node: set() for each in servers}
    for node, (master, _) in masters.items():
        if master:
            copies[master].add(node)
        for each in chain(through.get(node, ()), *(nodes[:MOST_MASTERS] for nodes in own_claims[node].values())):
            if each != node:
                further[each].add(node)
    found = {}
    for server in servers:
        master, unmanaged_master = masters[server.node]
        own, by_own_word = listed[server.node], copies[server.node]
        parents = (master,) if master else through.get(server.node, ())
        unmanaged = own.unmanaged(ignored)
        unnamed = server.facts.unnamed - len(by_own_word - own.nodes)
        top, depth = tops.get(server.node, (server.node, 0))
        top = top.removeprefix(":")
        stranger = masters[top][1]
        found[server.node] = Place(
            shard=stranger if stranger not in {"", UNKNOWN} else top,
            role=server.facts.role,
            master=master,
            depth=depth + 1 if stranger else depth,
            replicas=tuple(sorted(by_own_word | own.nodes | further[server.node])),
            unlisted=tuple(sorted((by_own_word | further[server.node]) - own.nodes)),
            contrary=tuple(sorted(each for each in own.nodes if _denies(by_name[each], masters[each], server))),
            unmanaged=(*unmanaged, *([f"{unnamed} more"] if unnamed > 0 else [])),
            ignored=own.ignored(ignored),
            unmanaged_master=unmanaged_master,
            doubted=bool(parents)
            and not any(_bears_out(by_name[each], server, listed[each].nodes) for each in parents),
            claimants=_first_of(claims[server.node], without=master),
        )
    groups: dict[object, set[str]] = {}  # one for each claim: pairs could be as many as the square of the fleet
    for node, claimed in claims.items():
        for key, claimants in claimed.items():
            if key not in groups:
                groups[key] = {*claimants}
            groups[key].add(node)
    # A listed replica may know its master by a name that its node does not report.
    uncertain = {node for node, master in masters.items() if any(master)} - certain
    by_list = ({node, *(own.nodes & uncertain)} for node, own in listed.items())
    return _joined(found, [*groups.values(), *({node, *above} for node, above in through.items()), *by_list])


def _denies(replica: Server, its_master: tuple[str, str], server: Server) -> bool:
    """Return True if a replica that the server lists says something else. One whose master is no node may mean the server."""
    node, stranger = its_master
    is_other = node != server.node and not stranger
    return bool(replica.facts.role) and (is_other or _is_of_another_shard(replica, server))


def _bears_out(master: Server, replica: Server, listed: Collection[str]) -> bool:
    """Return True if the server lists the replica, and both have the same replication id, which only servers of the shard know."""
    return replica.node in listed and not _is_of_another_shard(master, replica)


def _is_of_another_shard(one: Server, other: Server) -> bool:
    return one.facts.replication_id != other.facts.replication_id


def _first_of(claims: Claims, without: str) -> tuple[str, ...]:
    """Return the first names of those that claim an address or an id, without a node that is matched."""
    found = {each for nodes in claims.values() for each in nodes[: MOST_CLAIMANTS + 1]} - {without}
    return tuple(sorted(found)[:MOST_CLAIMANTS])


def _master_claims(server: Server, directory: Directory) -> Claims:
    """Return the nodes that say that they are the server's master."""
    peer = server.facts.master
    return directory.claims(peer, server) if server.facts.role == "replica" and peer else {}


def _joined(places: Mapping[str, Place], groups: Iterable[Collection[str]]) -> dict[str, Place]:
    """Return the places with one name for all shards of the nodes in a group: the first name, of a node if there is one."""
    above: dict[str, str] = {}

    def name_of(shard: str) -> str:
        while shard in above:
            above[shard] = shard = above.get(above[shard], above[shard])
        return shard

    for group in groups:
        first, *others = sorted({name_of(places[node].shard) for node in group}, key=lambda name: (":" in name, name))
        above |= dict.fromkeys(others, first)
    return {node: replace(place, shard=name_of(place.shard)) for node, place in places.items()}


def _master_of(server: Server, directory: Directory) -> tuple[str, str]:
    """Return the node that the server copies, or the address of one that is no node; both are empty for a master."""
    if server.facts.role != "replica":
        return "", ""
    peer = server.facts.master or Peer()
    node = directory.find(peer, server)
    return node, "" if node else _shown(peer)


def _further_masters(
    servers: Mapping[str, Server],
    masters: Mapping[str, tuple[str, str]],
    listed: Mapping[str, "_Listed"],
    certain: Collection[str],
) -> dict[str, tuple[str, ...]]:
    """Return the nodes above each replica whose master is no node, or does not bear it out: all that list this master, and then
    the masters with its replication id. A node that lies could list it too, so its list alone is not enough.

    Not if nodes say that they are this master: then a server that lists it has an unmanaged replica that no person accepts.
    """
    above: dict[object, set[str]] = {}
    for name, own in listed.items():
        facts = servers[name].facts
        addresses = (key_of(each, servers[name]) for each in {*facts.replicas} - own.claimed)
        for key in (*addresses, *({*facts.replica_ids} - own.claimed)):
            above.setdefault(key, set()).add(name)
    tops: dict[str, set[str]] = {}
    for name, each in servers.items():
        if each.facts.role == "master" and each.facts.replication_id:
            tops.setdefault(each.facts.replication_id, set()).add(name)
    found: dict[str, tuple[str, ...]] = {}
    for name, each in servers.items():
        node, stranger = masters[name]
        if (node or stranger) and name not in certain and (peer := each.facts.master):
            by_address = above.get(key_of(peer.address, each), set()) if is_address(peer.address) else set()
            by_id = above.get(peer.node_id, set()) if peer.node_id else set()
            listing = (by_id | by_address) - {name, node}
            if nodes := (*sorted(listing), *sorted(tops.get(each.facts.replication_id, set()) - listing - {node})):
                found[name] = nodes
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """The replicas that a server lists: nodes, and the addresses and cluster node ids of those that are no nodes.

    INFO lists addresses, and the cluster lists ids, so a replica may be in both. `by_id_only`: how many of the nodes have
    no address in the list; such an address may be among the `addresses`. `claimed`: those of the addresses and ids that a
    node says are its own, so no person can accept them. `claims`: these nodes.
    """

    nodes: set[str]
    addresses: frozenset[str]
    ids: frozenset[str]
    by_id_only: int
    claimed: frozenset[str]
    claims: Claims

    def unmanaged(self, ignored: Collection[str]) -> list[str]:
        """Return the replicas that are no nodes and that no person has accepted, sorted: as addresses, as far as each id
        can have one."""
        addresses = sorted(self.addresses.difference(self.ignored(ignored)))
        ids = sorted(self.ids.difference(self.ignored(ignored)))
        if not ids:
            return addresses if len(addresses) > self.by_id_only else []
        return addresses if len(ids) <= len(self.addresses) else [*addresses, *ids]

    def ignored(self, ignored: Collection[str]) -> tuple[str, ...]:
        return tuple(sorted((self.addresses | self.ids).intersection(ignored) - self.claimed))


def _listed(server: Server, directory: Directory) -> _Listed:
    by_address = {each: directory.find(Peer(address=each), server) for each in server.facts.replicas}
    # A replica has one connection. So a node that says that two of the addresses are its own is matched with none.
    twice = {node for node, count in Counter(by_address.values()).items() if count > 1}
    by_address = {each: "" if node in twice else node for each, node in by_address.items()}
    with_address = {node for node in by_address.values() if node}
    # Two nodes may report one id. If the server lists the address that a person has set for one of them, it means that one.
    named = directory.ids_of(with_address)
    ids = server.facts.replica_ids
    by_id = {each: directory.find(Peer(node_id=each), server) or named.get(each, "") for each in ids}
    with_id = {node for node in by_id.values() if node}
    unmatched = {each: Peer(address=each) for each, node in by_address.items() if not node}
    unmatched |= {each: Peer(node_id=each) for each, node in by_id.items() if not node}
    claims = {each: found for each, peer in unmatched.items() if (found := directory.claims(peer, server))}
    return _Listed(
        nodes=with_address | with_id,
        addresses=frozenset(each for each, node in by_address.items() if not node),
        ids=frozenset(each for each, node in by_id.items() if not node),
        by_id_only=len(with_id - with_address),
        claimed=frozenset(claims),
        claims={key: nodes for found in claims.values() for key, nodes in found.items()},
    )


def _shown(peer: Peer) -> str:
    return peer.address if is_address(peer.address) else peer.node_id or UNKNOWN


def _tops(masters: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return the node at the top of each replica's chain, and how far it is above. In a loop, the first name is the top."""
    found: dict[str, tuple[str, int]] = {}
    for start in masters:
        path: dict[str, None] = {}
        node = start
        while node in masters and node not in found and node not in path:
            path[node] = None
            node = masters[node]
        links = [*path]
        if node in path:
            loop = links[links.index(node) :]
            top = min(loop)
            place = loop.index(top)
            found |= {each: (top, (place - number) % len(loop)) for number, each in enumerate(loop)}
            links = links[: len(links) - len(loop)]
        top, above = found.get(node, (node, 0))
        for each in reversed(links):
            above += 1
            found[each] = (top, above)
    return found
