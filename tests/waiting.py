"""Waiting for what other threads and processes do. Nothing here says how long that should take: the machine may be busy."""

import time
from collections.abc import Callable
from typing import TypeVar

#: How long anything is waited for, seconds: less than the limit of `pytest-timeout`, so that the test says what for.
PATIENCE = 90

Answer = TypeVar("Answer")


def wait_for(condition: Callable[[], Answer], *, seconds: float = PATIENCE, pause: float = 0.01) -> Answer:
    """What `condition` answers as soon as it is true; asked again after `pause` seconds.

    Fewer `seconds` are only for what would come true later for another reason, such as a default that is longer.
    """
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"{condition} did not come true in {seconds} s"
        time.sleep(pause)
    return answer
