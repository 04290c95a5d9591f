"""The address of a client, behind as many proxies as the settings say."""

import ipaddress
from collections.abc import Mapping
from typing import Any

from django.conf import settings

#: A client with one IPv6 address has a whole network of them (RFC 6177).
_IPV6_NETWORK_BITS = 64


def client_address(meta: Mapping[str, Any]) -> str:
    """Return the address of the client in a request's `META`. For IPv6, return its network.

    Each trusted proxy has added the address of its client. Entries further to the left cannot be trusted.
    """
    address = str(meta.get("REMOTE_ADDR", ""))
    proxies = settings.ENVIRONMENT.trusted_proxies
    if proxies > 0 and (forwarded := meta.get("HTTP_X_FORWARDED_FOR")):
        hops = forwarded.split(",")
        address = hops[-min(proxies, len(hops))].strip()
    return _network(address) if ":" in address else address


def _network(address: str) -> str:
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:  # IPv4, as a server that listens on `::` sees it
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, _IPV6_NETWORK_BITS), strict=False))
