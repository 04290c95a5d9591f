"""Ctrl-C reaches what the tests start, also where the tests themselves run in the background of a shell.

Such a shell has them ignore SIGINT, and a process that ignores it hands that down.
"""

import signal


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
