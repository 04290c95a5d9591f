"""End the cluster's processes when `modfleet up` has ended or was killed.

Run as a program whose standard input is a pipe from `modfleet up`. The line `+<pid>` adds a process group, `-<pid>`
removes it. The pipe closes when `modfleet up` ends. This file imports nothing of the project, so that it starts at once.
"""

import contextlib
import os
import signal
import sys
import time

#: Seconds that the process groups have to end before they are killed.
STOP_SECONDS = 5.0


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line.startswith("+") else groups.discard)(int(line[1:]))
    _send(groups, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while any(map(is_alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.05)
    _send(groups, signal.SIGKILL)


def is_alive(group: int) -> bool:
    """Return True if the process group has a member."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _send(groups: set[int], number: signal.Signals) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
            if number == signal.SIGTERM:
                os.killpg(group, signal.SIGCONT)  # a stopped process would never receive SIGTERM


if __name__ == "__main__":
    main()
