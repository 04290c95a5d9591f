"""Which nodes a selector matches. Pure: works on any object with the fields of a node."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol, TypeVar

from modules_app.operating_systems import fitting_platforms


class Selectable(Protocol):
    """A node. `agent_labels`: the labels that its agent reports. `labels`: those that an operator set; they override the
    agent's."""

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
    """A node matches if it matches each field that is given, by any of the field's values. None: not given."""

    #: Names or shell patterns such as `web-*`, case-sensitive.
    names: tuple[str, ...] | None = None
    #: The accepted values, by label.
    labels: Mapping[str, tuple[str, ...]] | None = None
    #: Platforms such as `linux/x86_64`, or `rhel9/x86_64` for one operating system.
    platforms: tuple[str, ...] | None = None
    #: `valkey` or `redis`.
    servers: tuple[str, ...] | None = None
    #: Versions of the server, or their first components: `8.1` matches 8.1 and 8.1.3, but not 8.10.
    versions: tuple[str, ...] | None = None
    #: `master` or `replica`.
    roles: tuple[str, ...] | None = None


def select(selector: Selector, nodes: Iterable[SomeNode]) -> list[SomeNode]:
    """Return the nodes that match, in their order."""
    return [each for each in nodes if matches(selector, each)]


def matches(selector: Selector, node: Selectable) -> bool:
    return (
        _any(selector.names, lambda pattern: fnmatchcase(node.name, pattern))
        and _has_labels(selector.labels or {}, {**node.agent_labels, **node.labels})
        and _any(selector.platforms, fitting_platforms(node.platform, node.operating_system).__contains__)
        and _any(selector.servers, node.server.__eq__)
        and _any(selector.versions, lambda version: f"{node.server_version}.".startswith(f"{version}."))
        and _any(selector.roles, node.role.__eq__)
    )


def _any(accepted: Collection[str] | None, matching: Callable[[str], bool]) -> bool:
    return accepted is None or any(matching(each) for each in accepted)


def _has_labels(accepted: Mapping[str, tuple[str, ...]], labels: Mapping[str, str]) -> bool:
    return all(labels.get(name) in values for name, values in accepted.items())
