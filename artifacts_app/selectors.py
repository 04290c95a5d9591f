"""Answers about artifacts and their builds."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.db.models import Max, QuerySet

import decoding
from api.fields import rfc3339
from artifacts_app.downloads import download_url
from artifacts_app.errors import ArtifactNotFoundError
from artifacts_app.events import ArtifactDeleted, ArtifactUploaded
from artifacts_app.manifest import Member, files_digest
from artifacts_app.models import Build
from artifacts_app.package import packed_names
from eventstore import Condition, head
from modules_app.errors import ModuleNameTakenError
from modules_app.events import ModuleDeleted, ModuleRegistered
from modules_app.metadata import split_arguments
from modules_app.models import Module


def refuse_other_spelling(module_name: str) -> Condition:
    """Return a condition that no module is added or deleted. Raises: `ModuleNameTakenError` if a module has a name that
    differs only in case, and none has this name.

    To a server, the commands of both are the same. An older log may have several spellings: all of them stay allowed.
    """
    unique = Condition(after=head(), event_types=[ModuleRegistered, ModuleDeleted, ArtifactUploaded, ArtifactDeleted])
    spellings = {
        name
        for rows in (Module.objects, Build.objects)
        for name in rows.filter(module_name__iexact=module_name).values_list("module_name", flat=True)
    }
    if spellings and module_name not in spellings:
        raise ModuleNameTakenError(f"There is a module {min(spellings)} already: use that spelling of its name.")
    return unique


def builds(module_name: str, version: int) -> list[Build]:
    """Return the builds, sorted by platform. Raises: `ArtifactNotFoundError`."""
    found = list(Build.objects.filter(module_name=module_name, version=version))
    if not found:
        raise ArtifactNotFoundError(f"There is no artifact of {module_name} {version}. Upload its package first.")
    return found


def uploaded_versions() -> QuerySet[Any]:
    """Return each (module_name, version) that has a build."""
    return Build.objects.order_by("module_name", "version").values_list("module_name", "version", named=True).distinct()


def builds_of(module_name: str) -> list[Build]:
    """Return the builds of all versions, the newest version first. Empty if there is no package."""
    rows = Build.objects.filter(module_name=module_name).order_by("-version", "platform")
    return list(rows.defer("members", "document"))


def artifact_document(module_name: str, version: int) -> dict[str, Any]:
    """Return the artifact as JSON. Raises: `ArtifactNotFoundError`."""
    return _document(builds(module_name, version))


def artifact_documents(keys: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    """Return the artifacts as JSON, in this order. One query."""
    versions = [(name, version) for name, version in keys]
    rows = Build.objects.filter(module_name__in={name for name, _ in versions}, version__in={v for _, v in versions})
    rows = rows.defer("members", "document")  # long, and not used here
    grouped = groupby(rows, key=lambda row: (row.module_name, row.version))
    documents = {key: _document(list(group)) for key, group in grouped}
    return [documents[key] for key in versions if key in documents]


def dependencies_of(keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], list[str]]:
    """Return the names of the dependencies of each module version. Empty if the artifact was deleted."""
    versions = list(keys)
    known = {(each["module_name"], each["version"]): each["dependencies"] for each in artifact_documents(versions)}
    return {key: known.get(key, []) for key in versions}


def platforms_of(modules: Iterable[tuple[str, int]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the vendor's `platforms` map of each module version."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in Build.objects.filter(module_name__in={name for name, _ in modules}):
        digests = {each.path: each.sha256 for each in members_of(row)}
        entry = {"dependencies": json.loads(row.document).get("dependencies", {}), "sha256": digests[row.module_file]}
        found.setdefault((row.module_name, row.version), {})[row.platform] = entry
    return found


def members_of(build: Build) -> tuple[Member, ...]:
    return decoding.decode(build.members, tuple[Member, ...])


def metadata_of(build: Build) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(build.document)
    return document


def _document(rows: list[Build]) -> dict[str, Any]:
    dependencies = sorted({name for row in rows for name in json.loads(row.dependencies)})
    return {
        "module_name": rows[0].module_name,
        "version": rows[0].version,
        "builds": [
            {
                "platform": row.platform,
                "content_sha256": row.content_sha256,
                "package_sha256": row.package_sha256,
                "size": row.size,
                "uploaded_at": rfc3339(row.uploaded_at),
                "uploaded_by": row.uploaded_by,
            }
            for row in rows
        ],
        "dependencies": dependencies,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildToFetch:
    """All that a node needs to fetch, check, load and probe a build.

    `args` are the words of `command_line_args`, None if an earlier release has accepted a text that has none."""

    storage_key: str
    size: int
    package_sha256: str
    content_sha256: str
    module_file: str
    members: tuple[Member, ...]
    command_line_args: str
    args: tuple[str, ...] | None
    #: The module's arguments in a scratch server. None: the same.
    scratch_args: str | None
    commands: tuple[str, ...]

    def url(self, node: str) -> str:
        """Return a short-lived link to the package, for this node."""
        return download_url(self.storage_key, package_sha256=self.package_sha256, node=node)


def build_to_fetch(
    module_name: str, version: int, content_sha256: str, platforms: Collection[str]
) -> BuildToFetch | None:
    """Return the build with this content that fits one of the platforms, or None if there is none."""
    of_version = Build.objects.filter(module_name=module_name, version=version)
    row = of_version.filter(content_sha256=content_sha256, platform__in=platforms).first()
    if row is None:
        return None
    metadata = metadata_of(row)
    return BuildToFetch(
        storage_key=row.storage_key,
        size=row.size,
        package_sha256=row.package_sha256,
        content_sha256=row.content_sha256,
        module_file=row.module_file,
        members=members_of(row),
        command_line_args=metadata.get("command_line_args", ""),
        args=_args_of(metadata.get("command_line_args", "")),
        scratch_args=metadata.get("scratch_args"),
        commands=tuple(each["command_name"] for each in metadata["commands"]),
    )


def _args_of(text: str) -> tuple[str, ...] | None:
    try:
        return split_arguments(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedSuccess:
    """A load in a scratch server that has succeeded at `modfleet pack`. `server` is like `redis 7.0.15`, `platform` like
    `linux/x86_64/debian12`. `commands` and `options`: names that the server has seen. None: not known."""

    content_sha256: str
    server: str
    platform: str
    args: tuple[str, ...]
    scratch_args: tuple[str, ...]
    has_types: bool | None
    aux_data: bool | None
    commands: frozenset[str] | None
    options: frozenset[str] | None


def packed_successes(contents: Collection[str]) -> Iterator[PackedSuccess]:
    """Yield the successes in the packages with these contents; one query. Those of other files say nothing."""
    rows = Build.objects.filter(content_sha256__in=contents, document__contains='"scratch_successes"')
    for row in {row.content_sha256: row for row in rows.only("content_sha256", "document", "members")}.values():
        files = files_digest(members_of(row))
        for each in metadata_of(row).get("scratch_successes", ()):
            if each["files_sha256"] == files:
                yield PackedSuccess(
                    content_sha256=row.content_sha256,
                    server=each["server"],
                    platform=each["platform"],
                    args=tuple(each["args"]),
                    scratch_args=tuple(each["scratch_args"]),
                    has_types=each.get("has_types"),
                    aux_data=each.get("aux_data"),
                    commands=frozenset(each["commands"]) if "commands" in each else None,
                    options=frozenset(each["options"]) if "options" in each else None,
                )


def contents_with_builds(contents: Collection[str]) -> set[str]:
    """Return those of the contents that a build of the catalogue has; one query."""
    return set(Build.objects.filter(content_sha256__in=contents).values_list("content_sha256", flat=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedBuild:
    """What planning needs to know about a build. `size` is the package's size in bytes.

    `dependencies` are the names from `module.json` and `deps/`; `packed` are those inside the package. `capabilities` are
    those of `module.json`. `commands` are the names of its commands, in lower case. `entry_points`: the functions that it
    exports for servers, empty if an older version has inspected the package.
    """

    platform: str
    content_sha256: str
    size: int
    min_redis_version: str
    dependencies: frozenset[str]
    packed: frozenset[str]
    capabilities: frozenset[str]
    commands: frozenset[str] = frozenset()
    compatible_redis_version: str = ""
    entry_points: frozenset[str] = frozenset()
    #: SHA-256 of its `.so`.
    module_sha256: str = ""


def offered_builds(keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], list[OfferedBuild]]:
    """Return the builds of each module version, none if it has no artifact. One query."""
    offered: dict[tuple[str, int], list[OfferedBuild]] = {key: [] for key in keys}
    rows = Build.objects.filter(module_name__in={name for name, _ in offered}, version__in={v for _, v in offered})
    for row in rows:
        if (key := (row.module_name, row.version)) in offered:
            offered[key].append(_offered(row))
    return offered


def _offered(row: Build) -> OfferedBuild:
    metadata = metadata_of(row)
    return OfferedBuild(
        platform=row.platform,
        content_sha256=row.content_sha256,
        size=row.size,
        min_redis_version=metadata.get("min_redis_version", ""),
        dependencies=frozenset(json.loads(row.dependencies)),
        packed=frozenset(packed_names(each.path for each in members_of(row))),
        capabilities=frozenset(metadata.get("capabilities", ())),
        commands=frozenset(each["command_name"].lower() for each in metadata.get("commands", ())),
        compatible_redis_version=metadata.get("compatible_redis_version", ""),
        entry_points=frozenset(json.loads(row.entry_points)),
        module_sha256=next((each.sha256 for each in members_of(row) if each.path == row.module_file), ""),
    )


def newest_version(module_name: str) -> int | None:
    """Return the highest version that has a build, or None."""
    newest: int | None = Build.objects.filter(module_name=module_name).aggregate(newest=Max("version"))["newest"]
    return newest


def newest_storage_key() -> str | None:
    """Return the storage key of the newest package. None before the first upload."""
    return Build.objects.order_by("-uploaded_at", "key").values_list("storage_key", flat=True).first()
