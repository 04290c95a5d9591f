"""What an operation did to its server, in numbers and in words: the statistics before the load and after it."""

from collections.abc import Iterator, Mapping
from typing import Any

#: The fields of `messages.ServerStatistics`, each with its name for people.
NAMES = {
    "calls": "Calls of its commands",
    "failed_calls": "Failed calls",
    "p99_usec": "p99 latency",
    "used_memory": "Memory",
    "evicted_keys": "Evicted keys",
    "rejected_connections": "Rejected connections",
}


def in_columns(health: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the statistics in one level: `calls_before`, `calls_after`, and so on. None: not known."""
    return {
        f"{name}_{side}": ((health or {}).get(side) or {}).get(name) for name in NAMES for side in ("before", "after")
    }


def in_lines(health: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield a line for each statistic that is known, such as `Memory: 1.50 MB before, 1.75 MB after`."""
    columns = in_columns(health)
    for name, title in NAMES.items():
        before, after = (columns[f"{name}_{side}"] for side in ("before", "after"))
        if before is not None or after is not None:
            yield f"{title}: {_in_words(name, before)} before, {_in_words(name, after)} after"
    if health and health.get("restarts"):
        yield f"Restarts while it settled: {health['restarts']}"


def _in_words(name: str, value: float | None) -> str:
    if value is None:
        return "unknown"
    match name:
        case "p99_usec":
            return f"{value / 1000:.3f} ms"
        case "used_memory":
            return f"{value / 1_000_000:.2f} MB"
        case _:
            return str(value)
