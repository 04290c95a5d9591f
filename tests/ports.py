"""Ports for the servers of tests."""

import random
import socket
from collections import deque

#: Below the ports that the kernel gives to outgoing connections (32768 and more), one of which could take the port
#: before the server does. The bus of a cluster's server, at 10,000 above its port, is below them too.
PORTS = range(12_768, 22_768)
#: This process's marks on the ports that it gave away last. More than a test uses.
_marks: deque[socket.socket] = deque(maxlen=200)


def free_port() -> int:
    """Return a port that nobody uses, and that no other process of the tests gets meanwhile."""
    for port in random.sample(PORTS, len(PORTS)):
        # An abstract name (unix(7)): the kernel gives it to one process, and frees it when that ends.
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0modfleet-test-port-{port}")
            with socket.socket() as probe:
                probe.bind(("", port))
        except OSError:
            mark.close()
            continue
        _marks.append(mark)
        return port
    raise RuntimeError(f"Each port from {PORTS.start} to {PORTS.stop - 1} is in use.")
