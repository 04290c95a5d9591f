"""What is to be known of module versions before a node gets them: their builds, the server they want, what they need."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from artifacts_app.errors import ArtifactNotFoundError
from artifacts_app.selectors import OfferedBuild, newest_version, offered_builds
from modules_app.selectors import document_of, modules
from rollout.domain.placement.commands import Skip
from rollout.messages import Reason
from rollout.models import Node

#: The Redis version that Valkey forked from, and says that it is: whatever its own version.
REDIS_VERSION_OF_VALKEY = "7.2.4"

#: The vendor's word for a module that adds data types of its own.
TYPES = "types"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleVersion:
    """`builds` by platform. The other fields are those of its module object; `capabilities` None: there is none."""

    module_name: str
    version: int
    builds: Mapping[str, OfferedBuild]
    dependencies: frozenset[str] = frozenset()
    min_redis_version: str = ""
    capabilities: frozenset[str] | None = None

    @property
    def has_types(self) -> bool:
        """Whether it declares data types, so that keys may need it; also if nothing is known of it any more."""
        declared = [each.capabilities for each in self.builds.values()]
        if self.capabilities is not None:
            declared.append(self.capabilities)
        return not declared or any(TYPES in each for each in declared)

    def build_for(self, platforms: Iterable[str]) -> OfferedBuild | None:
        """The build for the first of the platforms that has one."""
        return next((self.builds[each] for each in platforms if each in self.builds), None)

    def needs(self, platforms: Iterable[str]) -> frozenset[str]:
        """Names of what must be there first; what travels in the package of that build is not among them."""
        build = self.build_for(platforms)
        return self.dependencies if build is None else (self.dependencies | build.dependencies) - build.packed

    def content_sha256(self, node: Node) -> str:
        """Of the build that the node gets, empty if there is none."""
        build = self.build_for(node.fitting_platforms)
        return "" if build is None else build.content_sha256

    def reason_to_skip(self, node: Node) -> Skip | None:
        """Why it cannot be installed there, as far as that is known beforehand."""
        build = self.build_for(node.fitting_platforms)
        if build is None:
            return self._lack_of_a_build(node)
        wanted, has = build.min_redis_version or self.min_redis_version, redis_version_of(node)
        if not is_older(has, wanted):
            return None
        server = f"{node.name} is {node.server} {node.server_version}, which is as Redis {has}"
        return (
            Reason.INCOMPATIBLE_REDIS_VERSION,
            f"{self.module_name} {self.version} wants Redis {wanted} at least; {server}.",
        )

    def lack_of_planned_build(self, node: Node, content_sha256: str) -> Skip:
        """Why the node cannot get the build that was planned for it: the build is gone, or the node is another now."""
        planned = sorted(name for name, build in self.builds.items() if build.content_sha256 == content_sha256)
        if not planned:
            return Reason.FETCH_FAILED, f"The build of {self.module_name} {self.version} for {node.name} is gone."
        machine = node.platform.partition("/")[2]
        if not any(platform.partition("/")[2] == machine for platform in planned):
            reason, now = Reason.INCOMPATIBLE_ARCH, f"is {node.platform} now"
        elif node.operating_system:
            reason, now = Reason.INCOMPATIBLE_OS, f"runs {node.operating_system} on {machine} now"
        else:
            reason, now = Reason.INCOMPATIBLE_OS, "does not say any more which operating system it runs"
        return reason, (
            f"{node.name} {now}; the rollout was planned with the build for {', '.join(planned)}. "
            "Start another rollout for it."
        )

    def _lack_of_a_build(self, node: Node) -> Skip:
        there = ", ".join(sorted(self.builds)) or "no platform"
        machine = node.platform.partition("/")[2]
        if not any(platform.partition("/")[2] == machine for platform in self.builds):
            return Reason.INCOMPATIBLE_ARCH, f"{node.name} is {node.platform}; there are builds for {there}."
        if not node.operating_system:
            message = f"{node.name} does not say which operating system it runs; there are builds for {there}."
            return Reason.INCOMPATIBLE_OS, message
        return (
            Reason.INCOMPATIBLE_OS,
            f"{node.name} runs {node.operating_system} on {machine}; there are builds for {there}.",
        )


def redis_version_of(node: Node) -> str:
    """The Redis version whose modules the node's server takes, empty if that is not known."""
    match node.server:
        case "valkey":
            return REDIS_VERSION_OF_VALKEY
        case "redis":
            return node.server_version
        case _:
            return ""


def is_older(version: str, wanted: str) -> bool:
    """Whether `version` comes before `wanted`; never if one of them is no version: 7.2 is 7.2.0, 7.2-rc1 is 7.2."""
    has, least = _components(version), _components(wanted)
    length = max(len(has), len(least))
    return bool(has and least) and has + (0,) * (length - len(has)) < least + (0,) * (length - len(least))


def _components(version: str) -> tuple[int, ...]:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)*)(?:[-+].*)?", version)
    return tuple(int(each) for each in found[1].split(".")) if found else ()


def module_versions(keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], ModuleVersion]:
    """One for each key, also for what has neither builds nor an object any more; two queries."""
    offered = offered_builds(keys)
    objects = modules().filter(module_name__in={name for name, _ in offered})
    documents = {(row.module_name, row.version): document_of(row) for row in objects}
    return {
        (name, version): ModuleVersion(
            module_name=name,
            version=version,
            builds={each.platform: each for each in builds},
            dependencies=frozenset(documents.get((name, version), {}).get("dependencies", ())),
            min_redis_version=documents.get((name, version), {}).get("min_redis_version", ""),
            capabilities=_capabilities(documents.get((name, version))),
        )
        for (name, version), builds in offered.items()
    }


def _capabilities(document: Mapping[str, Any] | None) -> frozenset[str] | None:
    return None if document is None else frozenset(document.get("capabilities", ()))


def version_to_install(module_name: str, version: int) -> ModuleVersion:
    """Raises: `ArtifactNotFoundError`."""
    (found,) = module_versions([(module_name, version)]).values()
    if not found.builds:
        raise ArtifactNotFoundError(f"There is no artifact of {module_name} {version}. Upload its package first.")
    return found


def newest_of(module_name: str) -> ModuleVersion | None:
    """The newest version that has builds, else the newest that is registered; None for what is no module of ours."""
    version = newest_version(module_name)
    if version is None:
        registered = modules().filter(module_name=module_name).last()
        version = registered.version if registered else None
    return None if version is None else module_versions([(module_name, version)])[module_name, version]
