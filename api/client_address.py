"""Where a request comes from, behind as many proxies as the settings say."""

import ipaddress
from collections.abc import Mapping
from typing import Any

from django.conf import settings

#: Who has one address of IPv6 has a whole network of them (RFC 6177).
_IPV6_NETWORK_BITS = 64


def client_address(meta: Mapping[str, Any]) -> str:
    """The address of the client whose request has this `META`; of IPv6 its network.

    Each trusted proxy has added the address of who called it: what stands further left anybody may have written.
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
    if parsed.ipv4_mapped is not None:  # a server that listens on `::` sees IPv4 so
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, _IPV6_NETWORK_BITS), strict=False))
