"""Ports for the servers of tests."""

import random
import socket
from collections import deque

#: Below the ports that the kernel gives to outgoing connections (32768 and more), one of which could take the port
#: before the server does. The bus of a cluster's server, at 10,000 above its port, is below them too.
PORTS = range(12_768, 22_768)
#: The ports that stay marked, more than a test uses; and the marks of this process, the oldest first.
MOST_MARKS = 200
_marks: deque[socket.socket] = deque()


def free_port() -> int:
    """Return a port that is not in use. Until it is one of the oldest marks, no other test gets it."""
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
        if len(_marks) > MOST_MARKS:
            _marks.popleft().close()
        return port
    raise RuntimeError(f"Each port from {PORTS.start} to {PORTS.stop - 1} is in use.")
