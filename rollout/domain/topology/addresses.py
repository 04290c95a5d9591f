"""Addresses of servers, `host:port`, in the one form in which they are compared."""

import re

from rollout.domain.errors import InvalidAddressError
from rollout.domain.words import escaped

#: The longest address, characters, as in `messages.Address`.
LONGEST = 264
#: Words of `Place` for replicas and masters that no node has named.
_OURS = re.compile("[0-9]{1,9} more|unknown")
_NODE_ID = re.compile(r"[0-9a-f]{40}")
_HOST = re.compile(r"[A-Za-z0-9._:%][A-Za-z0-9._:%-]{0,254}")
#: The same for the API's schema: every text that it matches is accepted.
_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
PATTERN = rf"(\[[0-9A-Fa-f:.]{{2,45}}\]|[A-Za-z0-9._%][A-Za-z0-9._%-]{{0,254}}):{_PORT}"


def canonical(address: str) -> str:
    """Return the address in lower case, and an IPv6 address without brackets."""
    host, _, port = address.rpartition(":")
    return f"{host.strip('[]').lower()}:{port}"[:LONGEST]


def is_address(address: str) -> bool:
    """Return False for an address without a host or a port: a server tells one that it does not know."""
    host, _, port = address.rpartition(":")
    return bool(host and port)


def is_loopback(address: str) -> bool:
    """Return True if this canonical address means another server on each host."""
    return address.startswith(("127.", "::1:", "localhost:"))


def checked(address: str) -> str:
    """Return the address that a person has given, canonical. Raises: `InvalidAddressError`."""
    found = canonical(address.strip())
    host, _, port = found.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536
    if not is_port or not _HOST.fullmatch(host):
        raise InvalidAddressError(f"{address[:LONGEST]!r} is not an address: write HOST:PORT, such as 10.0.0.7:6379.")
    return found


def checked_replica(address: str) -> str:
    """Return the address or the cluster node id that a person has given. Raises: `InvalidAddressError`."""
    return address if _NODE_ID.fullmatch(address) else checked(address)


def is_replica_address(text: str) -> bool:
    """Return True if a person can give the text as it is. A shell takes it as one word, and no command as an option."""
    try:
        return checked_replica(text) == text
    except InvalidAddressError:
        return False


def shown(text: str) -> str:
    """Return an address that a node has reported, for a sentence. Of another text, return the beginning, escaped."""
    return text if is_replica_address(text) or _OURS.fullmatch(text) else escaped(text)
