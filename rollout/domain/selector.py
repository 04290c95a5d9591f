"""Which nodes a selector means. Pure: works on anything that looks like a node."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol, TypeVar

from modules_app.operating_systems import fitting_platforms


class Selectable(Protocol):
    """A node: `agent_labels` are those that its agent reports; `labels`, an operator's, stand above them."""

    name: str
    platform: str
    operating_system: str
    server: str
    server_version: str
    role: str
    agent_labels: Mapping[str, str]
    labels: Mapping[str, str]


SomeNode = TypeVar("SomeNode", bound=Selectable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """All that is given must match; of the values inside one, any. None: not given."""

    #: Shell patterns, case counts.
    names: tuple[str, ...] | None = None
    #: The values that are wanted, by label.
    labels: Mapping[str, tuple[str, ...]] | None = None
    #: Such as `linux/x86_64`, or `rhel9/x86_64` for one operating system.
    platforms: tuple[str, ...] | None = None
    servers: tuple[str, ...] | None = None
    #: Versions or their beginnings, by whole components: `8.1` is 8.1 and 8.1.3, and not 8.10.
    versions: tuple[str, ...] | None = None
    roles: tuple[str, ...] | None = None


def select(selector: Selector, nodes: Iterable[SomeNode]) -> list[SomeNode]:
    """Those that match, in their order."""
    return [each for each in nodes if matches(selector, each)]


def matches(selector: Selector, node: Selectable) -> bool:
    return (
        _any(selector.names, lambda pattern: fnmatchcase(node.name, pattern))
        and _has_labels(selector.labels or {}, {**node.agent_labels, **node.labels})
        and _any(selector.platforms, fitting_platforms(node.platform, node.operating_system).__contains__)
        and _any(selector.servers, node.server.__eq__)
        and _any(selector.versions, lambda wanted: f"{node.server_version}.".startswith(f"{wanted}."))
        and _any(selector.roles, node.role.__eq__)
    )


def _any(wanted: Collection[str] | None, matching: Callable[[str], bool]) -> bool:
    return wanted is None or any(matching(each) for each in wanted)


def _has_labels(wanted: Mapping[str, tuple[str, ...]], labels: Mapping[str, str]) -> bool:
    return all(labels.get(name) in values for name, values in wanted.items())
