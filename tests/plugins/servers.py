"""On which server a test runs: Valkey of the wheel, or Redis of the system's package.

`make test` runs each test on one of the two, and about as many on each; `make test-full` runs it on both. A test that has
one of them only, or is `full` with one of them, runs as it says.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
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
            later = (crc32(name.encode()) + number[path, name]) % 2
            sorted(each, key=lambda pair: pair[0])[later][1].add_marker(pytest.mark.full)


def _server(value: object) -> str:
    """Return which server a parameter names, empty if none."""
    name = Path(value).name.removesuffix("-server") if isinstance(value, str | Path) else ""
    return name if name in {"valkey", "redis"} else ""
