"""Waiting for what other threads and processes do. Nothing here says how long that should take: the machine may be busy."""

import inspect
import time
from collections.abc import Callable
from typing import TypeVar

#: How long anything is waited for, seconds: less than the limit of `pytest-timeout`, so that the test says what for.
PATIENCE = 90

Answer = TypeVar("Answer")


def wait_for(
    condition: Callable[[], Answer],
    *,
    seconds: float = PATIENCE,
    pause: float = 0.01,
    state: Callable[[], object] = lambda: "",
) -> Answer:
    """What `condition` answers as soon as it is true; asked again after `pause` seconds.

    Fewer `seconds` are only for what would come true later for another reason, such as a default that is longer. `state`:
    what the message of the failure shows in addition.
    """
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"{_words(condition)} did not come true in {seconds} s. {state()}".rstrip()
        time.sleep(pause)
    return answer


def _words(condition: Callable[[], object]) -> str:
    """The source of the condition, in one line."""
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        return repr(condition)
