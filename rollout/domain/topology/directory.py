"""Finds the node whose server another server means. More than one match is no match: all of them may be meant."""

from collections.abc import Collection, Iterable
from typing import NamedTuple, TypeVar

from rollout.domain.topology.addresses import is_address, is_loopback
from rollout.domain.topology.servers import Peer, Server

K = TypeVar("K", str, "_Key")


#: Nodes, sorted, by the address or cluster node id that they say is their own.
Claims = dict[object, tuple[str, ...]]


class _Key(NamedTuple):
    """An address. `network`: of the server that names it, if the address means another server in each; else empty. `node`: that
    server, if its network is not known."""

    address: str
    network: str = ""
    node: str = ""


class Directory:
    """Servers by cluster node id, by the address that a person has set, and by the addresses that nodes report."""

    def __init__(self, servers: Collection[Server]) -> None:
        self._ids = {each.node: each.facts.node_id for each in servers}
        self._by_id = _unique((each.facts.node_id, each.node) for each in servers if each.facts.node_id)
        self._by_person = _unique((key_of(each.address, each), each.node) for each in servers if each.address)
        self._named = {each.node for each in servers if each.address}
        named = {address for each in servers for address in each.facts.replicas}
        named |= {each.facts.master.address for each in servers if each.facts.master}
        asked = {*filter(is_address, named)}
        self._by_report = _unique(
            (key_of(address, each), each.node)
            for each in servers
            if not each.address
            for address in each.facts.addresses
            if address in asked and not _is_of_master(address, each)
        )
        claims: dict[object, dict[str, None]] = {}
        for each in sorted(servers, key=lambda server: server.node):
            own = {each.address} if each.address else asked.intersection(each.facts.addresses)
            for key in _keys(own, each.facts.node_id, each):
                claims.setdefault(key, {})[each.node] = None
        self._claims = {key: tuple(nodes) for key, nodes in claims.items()}

    def find(self, peer: Peer, by: Server) -> str:
        """Return the node that the server `by` means, empty if it is none or not certain.

        An address that a person has set means that node, also if another node reports it. Only addresses that a server names
        can be found.
        """
        node = self._found(peer, by)
        return "" if node == by.node else node

    def ids_of(self, nodes: Iterable[str]) -> dict[str, str]:
        """Return those of the nodes whose address a person has set, by the cluster node id that they report."""
        return {self._ids[each]: each for each in nodes if each in self._named and self._ids[each]}

    def _found(self, peer: Peer, by: Server) -> str:
        key = key_of(peer.address, by)
        named = self._by_person.get(key, "")
        if named and self._may_be(named, peer):
            return named
        if peer.node_id in self._by_id:
            return self._by_id[peer.node_id]
        node = named if key in self._by_person else self._by_report.get(key, "")
        return node if node and self._may_be(node, peer) else ""

    def _may_be(self, node: str, peer: Peer) -> bool:
        """Return False if the node has another cluster node id."""
        return not peer.node_id or self._ids[node] in {"", peer.node_id}

    def claims(self, peer: Peer, by: Server) -> Claims:
        """Return the nodes that say that they are this server, by its address and by its id, if `by` is not the only one.
        `find` may find none of them."""
        found = {key: self._claims.get(key, ()) for key in _keys({peer.address}, peer.node_id, by)}
        return {key: nodes for key, nodes in found.items() if nodes not in {(), (by.node,)}}


def key_of(address: str, by: Server) -> _Key:
    """Return what the address means when the server `by` names it."""
    if not is_loopback(address):
        return _Key(address)
    return _Key(address, network=by.facts.network) if by.facts.network else _Key(address, node=by.node)


def _is_of_master(address: str, server: Server) -> bool:
    """Return True if the server says that its master has this address: then it is not its own."""
    return server.facts.master is not None and address == server.facts.master.address


def _keys(addresses: Iterable[str], node_id: str, by: Server) -> list[object]:
    found: list[object] = [key_of(each, by) for each in addresses if is_address(each)]
    return [*found, node_id] if node_id else found


def _unique(pairs: Iterable[tuple[K, str]]) -> dict[K, str]:
    """Return the node of each key, empty if there is more than one."""
    found: dict[K, str] = {}
    for key, node in pairs:
        found[key] = node if found.get(key, node) == node else ""
    return found
