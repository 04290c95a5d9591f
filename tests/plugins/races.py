"""Two decisions at the same moment: each has read all that it decides on before the other one writes.

A barrier before the lock of the first append of each thread, for two threads that merely start together seldom overlap.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any, TypeVar

import pytest

from api.errors import ApiError
from eventstore import Append, store
from tests.plugins.databases import at_once
from tests.waiting import PATIENCE

Result = TypeVar("Result")
#: What each of the functions returned, or the `ApiError` that it raised.
Race = Callable[..., list[Any]]


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
def race(monkeypatch: pytest.MonkeyPatch) -> Race:
    """Calls functions at once; what each returned, or was refused for. Each decides before any of them has written."""
    meetings: list[_Meeting] = []
    real = store._expected_versions

    def meet(appends: Sequence[Append]) -> Any:
        if meetings:
            meetings[-1].wait()
        return real(appends)

    monkeypatch.setattr(store, "_expected_versions", meet)

    def run(*functions: Callable[[], Any]) -> list[Any]:
        meeting = _Meeting(len(functions))
        meetings.append(meeting)
        outcomes = at_once(*(lambda function=function: meeting.run(function) for function in functions))
        meetings.clear()
        return outcomes

    return run


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, Callable[[], object]], None]:
    """`meanwhile(module, action)`: `action` is carried out just before the module's next append, after it has decided."""

    def arrange(module: Any, action: Callable[[], object]) -> None:
        real = module.append

        def act_first(*appends: Append, **more: Any) -> Any:
            monkeypatch.setattr(module, "append", real)
            action()
            return real(*appends, **more)

        monkeypatch.setattr(module, "append", act_first)

    return arrange
