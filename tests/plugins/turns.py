"""Which of the costly tests run: each landing runs about half of them, and the next one the other half.

- A test that has both servers as a parameter, Valkey of the wheel and Redis of the system's package, runs on one of them.
- Of the tests that start clusters (`e2e`) or are `slow`, every second one of a file runs. One that is `core` always runs.

`make test` counts the turns by the commits (MODFLEET_TURN). Without that number, such as in a run of one file, no test is left out
but those on the other server. `make test-full` runs all of them, on both servers.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs after those of the folders' conftest.py, which set `e2e`, and before `-m` chooses."""
    given = os.environ.get("MODFLEET_TURN", "")
    turn = int(given or 0)
    _choose_servers(items, turn)
    if given:
        _choose_costly([each for each in items if not each.get_closest_marker("full")], turn)


def _choose_servers(items: Sequence[pytest.Item], turn: int) -> None:
    twins: dict[tuple[Any, ...], list[tuple[str, pytest.Item]]] = defaultdict(list)
    for item in items:
        params: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
        servers = {name: server for name, value in params.items() if (server := _server(value))}
        if len(servers) == 1:
            ((argument, server),) = servers.items()
            others = sorted((name, repr(value)) for name, value in params.items() if name != argument)
            twins[item.path, item.name.partition("[")[0], *others].append((server, item))
    number: dict[tuple[Any, Any], int] = defaultdict(int)
    for (path, name, *_), each in twins.items():
        number[path, name] += 1
        if len(each) == 2 and not any(item.get_closest_marker("full") for _, item in each):
            later = (crc32(name.encode()) + number[path, name] + turn) % 2
            sorted(each, key=lambda pair: pair[0])[later][1].add_marker(pytest.mark.full)


def _choose_costly(items: Sequence[pytest.Item], turn: int) -> None:
    place: dict[Path, int] = defaultdict(int)
    for item in items:
        is_costly = item.get_closest_marker("e2e") or item.get_closest_marker("slow")
        if not is_costly or item.get_closest_marker("core"):
            continue
        place[item.path] += 1
        # The name counts too: of the files with one test, half run.
        if (crc32(item.path.name.encode()) + place[item.path] + turn // 2) % 2:
            item.add_marker(pytest.mark.full)


def _server(value: object) -> str:
    """Return which server a parameter names, empty if none."""
    name = Path(value).name.removesuffix("-server") if isinstance(value, str | Path) else ""
    return name if name in {"valkey", "redis"} else ""
