"""Return all problems of a package, with the API's messages, or its contents."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts_app.package import InspectedPackage, InvalidMetadata, Problem, find_problems, inspect_package
from modfleet.packing import PackError
from modfleet.packing.write import sha256_of
from modules_app.metadata import MODULE_OBJECT_FIELDS

#: Default limits of a control plane, in bytes and files.
MAX_UPLOAD_BYTES = 500_000_000
MAX_UNPACKED_BYTES = 2_000_000_000
MAX_MEMBERS = 1000

#: Fields that the vendor's tools require.
_VENDORS_FIELDS = ("architecture", "module_file", "sha256", "compatible_redis_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`problems` have an `error_code` and a `description`, as the API's errors. With problems, `summary` is empty.

    `warnings` name what this control plane accepts and other tools may refuse.
    """

    problems: tuple[dict[str, str], ...]
    warnings: tuple[str, ...] = ()
    summary: dict[str, Any]


def check_package(path: Path) -> Report:
    """Return the problems of a package, or its contents. Raises: `PackError` if the file cannot be read."""
    limits = {"max_unpacked_bytes": MAX_UNPACKED_BYTES, "max_members": MAX_MEMBERS}
    try:
        with path.open("rb") as file:
            problems = find_problems(file, **limits)
            if problems:
                return Report(problems=tuple(_described(problems)), summary={})
            package = inspect_package(file, **limits)
            summary = _summary(package, path)
    except OSError as error:
        raise PackError(f"{path} cannot be read: {error.strerror}.") from error
    return Report(problems=(), warnings=tuple(_warnings(package, summary["size"])), summary=summary)


def _described(problems: tuple[Problem, ...]) -> Iterator[dict[str, str]]:
    for problem in problems:
        if isinstance(problem, InvalidMetadata):
            for field, wrong in problem.fields.items():
                yield {"error_code": problem.code, "description": f"{field}: {wrong}"}
        else:
            yield {"error_code": problem.code, "description": str(problem)}


def _summary(package: InspectedPackage, path: Path) -> dict[str, Any]:
    metadata = package.metadata
    return {
        "file": str(path),
        "module_name": metadata.module_name,
        "version": metadata.version,
        "semantic_version": metadata.semantic_version,
        "platforms": list(package.platforms),
        "size": path.stat().st_size,
        "package_sha256": sha256_of(path),
        "content_sha256": package.content_sha256,
        "module_file": package.module_file,
        "commands": list(metadata.commands),
        "capabilities": list(metadata.capabilities),
        "command_line_args": metadata.command_line_args,
        "min_redis_version": metadata.min_redis_version,
        "dependencies": list(package.dependencies),
    }


def _warnings(package: InspectedPackage, size: int) -> Iterator[str]:
    document = package.metadata.document
    if absent := [name for name in MODULE_OBJECT_FIELDS if name not in document]:
        yield f"POST /v2/modules/user-defined requires {', '.join(absent)}, which module.json lacks"
    if absent := [name for name in _VENDORS_FIELDS if not document.get(name)]:
        yield f"the vendor's tools require {', '.join(absent)}, which module.json lacks"
    if package.metadata.version == 0:
        yield "the vendor's tools refuse version 0"
    if size > MAX_UPLOAD_BYTES:
        yield f"it is larger than {MAX_UPLOAD_BYTES} bytes, the default limit of a control plane"
