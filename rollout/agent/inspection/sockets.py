"""Addresses of this host, and the processes that have its sockets open."""

import array
import fcntl
import socket
import struct
import sys
from contextlib import suppress
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from rollout.agent.inspection.host_files import read_link, read_text


def is_local(host: str) -> bool:
    """Return True if `host` is an address of this host: a socket can be bound to it."""
    try:
        if ip_address(host).is_loopback:
            return True
    except ValueError:
        if host == "localhost" or host.endswith(".localhost"):
            return True
    with suppress(OSError):
        for family, kind, protocol, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
                return True
    return False


def host_addresses(root: Path = Path("/")) -> list[str]:
    """Return the IP addresses of this host, without those of loopback and of one link only. Cheap: no name is resolved."""
    rows = [line.split() for line in (read_text(root / "proc/net/if_inet6") or "").splitlines()]
    found = [*_ipv4_addresses(), *(str(IPv6Address(int(row[0], 16))) for row in rows)]
    return [
        each for each in dict.fromkeys(found) if not (ip_address(each).is_loopback or ip_address(each).is_link_local)
    ]


def network_id(root: Path = Path("/")) -> str:
    """Return an id of this machine's network namespace, until the machine is started again; empty if it is not known.

    Two processes reach each other by a loopback address only if they are in one namespace: network_namespaces(7).
    """
    boot, namespace = read_text(root / "proc/sys/kernel/random/boot_id"), read_link(root / "proc/self/ns/net")
    return sha256(f"{boot.strip()} {namespace}".encode()).hexdigest()[:32] if boot and namespace else ""


def _ipv4_addresses() -> list[str]:
    """Return the IPv4 addresses of all interfaces: SIOCGIFCONF, netdevice(7)."""
    request = 40 if sys.maxsize > 2**32 else 32  # the size of a `struct ifreq`
    buffer = array.array("B", bytes(request * 256))
    address, _ = buffer.buffer_info()
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe.fileno(), 0x8912, struct.pack("iL", len(buffer), address))
        used = struct.unpack("iL", answer)[0]
        return [socket.inet_ntoa(bytes(buffer[at + 20 : at + 24])) for at in range(0, used, request)]
    return []


def peer_pid(path: str) -> int | None:
    """Return the pid of the process that listens on the Unix socket. The kernel tells it to each client: unix(7)."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        client.connect(path)
        pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return pid or None  # 0: a process that this pid namespace does not see
    return None


def unix_inodes(path: str, root: Path) -> set[str]:
    """Return the inodes of the sockets that listen on `path`: proc(5), /proc/net/unix."""
    lines = (read_text(root / "proc/net/unix") or "").splitlines()[1:]
    rows = [line.split(maxsplit=7) for line in lines]
    listening = 0x10000  # __SO_ACCEPTCON
    return {row[6] for row in rows if len(row) == 8 and row[7] == path and int(row[3], 16) & listening}


def tcp_inodes(port: int, root: Path) -> set[str]:
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in (read_text(root / "proc/net" / name) or "").splitlines()[1:]
    ]
    return {row[9] for row in rows if len(row) > 9 and row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}


def owner_pid(inodes: set[str], root: Path) -> int | None:
    """Return the only process that has one of these sockets open."""
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    owners = set()
    for directory in (root / "proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(read_link(each) in wanted for each in (directory / "fd").iterdir()):
                owners.add(int(directory.name))
    return owners.pop() if len(owners) == 1 else None  # children of a server have its sockets too
