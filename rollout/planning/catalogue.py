"""Module versions: their builds, the server that they need, and the modules that they need."""

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

#: The Redis version that every Valkey reports: the one from which it forked. For nodes whose agent is too old to report it.
REDIS_VERSION_OF_VALKEY = "7.2.4"

#: The function by which Redis loads a module; Valkey also knows another one.
REDIS_ENTRY_POINT = "RedisModule_OnLoad"

#: The vendor's capability of a module that adds data types.
TYPES = "types"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleVersion:
    """`builds`: by platform. The other fields come from its module object; `capabilities` is None if there is none."""

    module_name: str
    version: int
    builds: Mapping[str, OfferedBuild]
    dependencies: frozenset[str] = frozenset()
    min_redis_version: str = ""
    compatible_redis_version: str = ""
    capabilities: frozenset[str] | None = None

    @property
    def has_types(self) -> bool:
        """Return True if it declares data types, so that keys may need it; also if neither builds nor an object are left."""
        declared = [each.capabilities for each in self.builds.values()]
        if self.capabilities is not None:
            declared.append(self.capabilities)
        return not declared or any(TYPES in each for each in declared)

    def build_for(self, platforms: Iterable[str]) -> OfferedBuild | None:
        """Return the build for the first of the platforms that has one."""
        return next((self.builds[each] for each in platforms if each in self.builds), None)

    def needs(self, platforms: Iterable[str]) -> frozenset[str]:
        """Return the names of the modules that must be loaded first, without those in the package of the build."""
        build = self.build_for(platforms)
        return self.dependencies if build is None else (self.dependencies | build.dependencies) - build.packed

    def commands(self, platforms: Iterable[str]) -> frozenset[str]:
        """Return the names of the commands that the build declares, in lower case."""
        build = self.build_for(platforms)
        return frozenset() if build is None else build.commands

    def content_sha256(self, node: Node) -> str:
        """Return the SHA-256 of the build that the node gets, empty if there is none."""
        build = self.build_for(node.fitting_platforms)
        return "" if build is None else build.content_sha256

    def reason_to_skip(self, node: Node) -> Skip | None:
        """Return why it cannot be installed on the node, None if nothing is known against it."""
        build = self.build_for(node.fitting_platforms)
        if build is None:
            return self._lack_of_a_build(node)
        if node.server == "redis" and build.entry_points and REDIS_ENTRY_POINT not in build.entry_points:
            message = (
                f"{self.module_name} {self.version} exports only {', '.join(sorted(build.entry_points))}, which Redis does "
                f"not call; {node.name} runs Redis {node.server_version}. Upload a build that exports {REDIS_ENTRY_POINT}."
            )
            return Reason.INCOMPATIBLE_SERVER, message
        least, has = build.min_redis_version or self.min_redis_version, redis_version_of(node)
        if not is_older(has, least):
            return None
        server = f"{node.name} runs {node.server} {node.server_version}, which counts as Redis {has}"
        return (
            Reason.INCOMPATIBLE_REDIS_VERSION,
            f"{self.module_name} {self.version} needs Redis {least} or newer; {server}.",
        )

    def warning(self, node: Node) -> Skip | None:
        """Return that the node's server is newer than those that the module was made for, None if that is not known."""
        build = self.build_for(node.fitting_platforms)
        newest = (build and build.compatible_redis_version) or self.compatible_redis_version
        has = redis_version_of(node)
        if not newest or not is_older(_release(newest), _release(has)):
            return None
        message = (
            f"{self.module_name} {self.version} is known to be compatible with Redis {newest}; {node.name} runs "
            f"{node.server} {node.server_version}, which counts as Redis {has}."
        )
        return Reason.INCOMPATIBLE_REDIS_VERSION, message

    def lack_of_planned_build(self, node: Node, content_sha256: str) -> Skip:
        """Return why the node cannot get the build of its plan: the build was deleted, or the node has changed."""
        planned = sorted(name for name, build in self.builds.items() if build.content_sha256 == content_sha256)
        if not planned:
            return Reason.FETCH_FAILED, f"The build of {self.module_name} {self.version} for {node.name} was deleted."
        machine = node.platform.partition("/")[2]
        if not any(platform.partition("/")[2] == machine for platform in planned):
            reason, now = Reason.INCOMPATIBLE_ARCH, f"is {node.platform} now"
        elif node.operating_system:
            reason, now = Reason.INCOMPATIBLE_OS, f"runs {node.operating_system} on {machine} now"
        else:
            reason, now = Reason.INCOMPATIBLE_OS, "no longer reports its operating system"
        return reason, (
            f"{node.name} {now}; the rollout was planned with the build for {', '.join(planned)}. "
            "Start another rollout for it."
        )

    def _lack_of_a_build(self, node: Node) -> Skip:
        built = ", ".join(sorted(self.builds)) or "no platform"
        machine = node.platform.partition("/")[2]
        if not any(platform.partition("/")[2] == machine for platform in self.builds):
            return Reason.INCOMPATIBLE_ARCH, f"{node.name} is {node.platform}; there are builds for {built}."
        if not node.operating_system:
            message = f"{node.name} does not report its operating system; there are builds for {built}."
            return Reason.INCOMPATIBLE_OS, message
        return (
            Reason.INCOMPATIBLE_OS,
            f"{node.name} runs {node.operating_system} on {machine}; there are builds for {built}.",
        )


def redis_version_of(node: Node) -> str:
    """Return the Redis version with which the node's server is compatible, empty if it is not known."""
    if node.redis_version:
        return node.redis_version
    match node.server:
        case "valkey":
            return REDIS_VERSION_OF_VALKEY
        case "redis":
            return node.server_version
        case _:
            return ""


def is_older(version: str, other: str) -> bool:
    """Return True if `version` comes before `other`, False if one of them is no version. 7.2 is 7.2.0, 7.2-rc1 is 7.2."""
    one, two = _components(version), _components(other)
    length = max(len(one), len(two))
    return bool(one and two) and one + (0,) * (length - len(one)) < two + (0,) * (length - len(two))


def _release(version: str) -> str:
    """Return the first two components: servers with the same ones are compatible."""
    return ".".join(version.partition("-")[0].split(".")[:2])


def _components(version: str) -> tuple[int, ...]:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)*)(?:[-+].*)?", version)
    return tuple(int(each) for each in found[1].split(".")) if found else ()


def module_versions(keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], ModuleVersion]:
    """Return a version for each key, also if neither builds nor an object are left; two queries."""
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
            compatible_redis_version=documents.get((name, version), {}).get("compatible_redis_version", ""),
            capabilities=_capabilities(documents.get((name, version))),
        )
        for (name, version), builds in offered.items()
    }


def _capabilities(document: Mapping[str, Any] | None) -> frozenset[str] | None:
    return None if document is None else frozenset(document.get("capabilities", ()))


def version_to_install(module_name: str, version: int) -> ModuleVersion:
    """Return the version if it has a build. Raises: `ArtifactNotFoundError`."""
    (found,) = module_versions([(module_name, version)]).values()
    if not found.builds:
        raise ArtifactNotFoundError(f"There is no artifact of {module_name} {version}. Upload its package first.")
    return found


def newest_of(module_name: str) -> ModuleVersion | None:
    """Return the newest version that has builds, else the newest registered one; None if there is neither."""
    version = newest_version(module_name)
    if version is None:
        registered = modules().filter(module_name=module_name).last()
        version = registered.version if registered else None
    return None if version is None else module_versions([(module_name, version)])[module_name, version]
