"""Two decisions at the same moment: each has read all that it decides on before the other one writes.

A barrier before the lock of the first append of each thread, for two threads that merely start together seldom overlap.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pytest

from api.errors import ApiError
from eventstore import store
from tests.plugins.databases import at_once
from tests.waiting import PATIENCE

Result = TypeVar("Result")
Race = Callable[..., list[Result | ApiError]]


class _Meeting:
    """Where the threads of one race wait for each other, once each."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)
        self._local = threading.local()

    def wait(self) -> None:
        if getattr(self._local, "has_met", True):
            return
        self._local.has_met = True
        with suppress(threading.BrokenBarrierError):  # the other one has ended without an append, and set this one free
            self._barrier.wait(PATIENCE)

    def run(self, function: Callable[[], Result]) -> Result | ApiError:
        self._local.has_met = False
        try:
            return function()
        except ApiError as error:
            return error
        finally:
            self._barrier.abort()


@pytest.fixture
def race(monkeypatch) -> Race:
    """Calls functions at once; what each returned, or was refused for. Each decides before any of them has written."""
    meetings: list[_Meeting] = []
    real = store._expected_versions

    def meet(appends):
        if meetings:
            meetings[-1].wait()
        return real(appends)

    monkeypatch.setattr(store, "_expected_versions", meet)

    def run(*functions):
        meeting = _Meeting(len(functions))
        meetings.append(meeting)
        outcomes = at_once(*(lambda function=function: meeting.run(function) for function in functions))
        meetings.clear()
        return outcomes

    return run


@pytest.fixture
def meanwhile(monkeypatch):
    """`meanwhile(module, action)`: `action` is carried out just before the module's next append, after it has decided."""

    def arrange(module, action):
        real = module.append

        def act_first(*appends, **more):
            monkeypatch.setattr(module, "append", real)
            action()
            return real(*appends, **more)

        monkeypatch.setattr(module, "append", act_first)

    return arrange
