"""Finds the node whose server another server means. More than one match is no match."""

from collections.abc import Hashable, Iterable
from typing import TypeVar

from rollout.domain.topology.addresses import canonical, is_address, is_loopback
from rollout.domain.topology.servers import Peer, Server

K = TypeVar("K", bound=Hashable)


class Directory:
    """Servers by cluster node id, by the address that a person has set, and by the addresses that nodes report."""

    def __init__(self, servers: Iterable[Server]) -> None:
        self._servers = {each.node: each for each in servers}
        every = self._servers.values()
        self._by_id = _unique((each.facts.node_id, each.node) for each in every if each.facts.node_id)
        self._by_person = _unique((_key(each.address, each), each.node) for each in every if each.address)
        self._by_report = _unique(
            (_key(address, each), each.node) for each in every if not each.address for address in each.facts.addresses
        )

    def find(self, peer: Peer, by: Server) -> str:
        """Return the node that the server `by` means, empty if it is none or not certain.

        An address that a person has set means that node, also if another node reports it.
        """
        if peer.node_id in self._by_id:
            node = self._by_id[peer.node_id]
        else:
            if not is_address(peer.address):
                return ""
            key = _key(peer.address, by)
            node = self._by_person[key] if key in self._by_person else self._by_report.get(key, "")
            if node and peer.node_id and self._servers[node].facts.node_id:
                return ""  # it has the address, but another id
        return "" if node == by.node else node


def _key(address: str, by: Server) -> tuple[str, str]:
    """Return the address, with the host if it means another server on each host."""
    return by.host if is_loopback(address) else "", canonical(address)


def _unique(pairs: Iterable[tuple[K, str]]) -> dict[K, str]:
    """Return the node of each key, empty if there is more than one."""
    found: dict[K, str] = {}
    for key, node in pairs:
        found[key] = node if found.get(key, node) == node else ""
    return found
