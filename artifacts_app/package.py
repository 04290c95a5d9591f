"""Inspects an uploaded package without unpacking it: a zip of one shared object, `module.json` and maybe `deps/`."""

import hashlib
import re
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import IO

from api import strict_json
from artifacts_app.exceptions import InvalidArtifact
from artifacts_app.manifest import Member, content_digest, files_digest
from artifacts_app.shared_object import read_shared_object
from artifacts_app.strict_zip import Entry, read_content, read_entries
from modules_app.metadata import PACKAGE_FIELDS, InvalidMetadata, ModuleMetadata, parse_metadata

__all__ = ["InspectedPackage", "InvalidArtifact", "InvalidMetadata", "find_problems", "inspect_package"]

Problem = InvalidArtifact | InvalidMetadata

METADATA_FILE = "module.json"
DEPENDENCIES_DIRECTORY = "deps/"
#: Bytes.
MAX_METADATA = 1024 * 1024
#: A larger shared object goes to a temporary file, bytes.
MAX_IN_MEMORY = 1024 * 1024

#: Other names for the machines of `shared_object.MACHINES`.
MACHINE_ALIASES = {"amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedPackage:
    """The contents of a valid package."""

    metadata: ModuleMetadata
    #: Name of the shared object.
    module_file: str
    #: Such as `linux/x86_64`, with the machine of the shared object. One for each operating system in `module.json`.
    platforms: tuple[str, ...]
    #: The functions that the shared object exports for servers, such as `RedisModule_OnLoad`.
    entry_points: tuple[str, ...]
    #: All files, sorted by path.
    members: tuple[Member, ...]
    #: The build's identity, see `content_digest`.
    content_sha256: str
    #: Names from `module.json` and `deps/`, sorted.
    dependencies: tuple[str, ...]


def inspect_package(file: IO[bytes], *, max_unpacked_bytes: int, max_members: int) -> InspectedPackage:
    """Check every byte of the package in the seekable `file`, and return its contents. Leaves `file` at any position.

    Raises: `InvalidArtifact` for a package that is incomplete or damaged, `InvalidMetadata` for a wrong `module.json`.
    Stops at the first problem.
    """
    looking = _problems(file, max_unpacked_bytes=max_unpacked_bytes, max_members=max_members)
    try:
        raise next(looking)
    except StopIteration as end:
        package: InspectedPackage = end.value
        return package


def find_problems(file: IO[bytes], *, max_unpacked_bytes: int, max_members: int) -> tuple[Problem, ...]:
    """Return all problems of the package in the seekable `file`, as far as one problem does not hide another."""
    return tuple(_problems(file, max_unpacked_bytes=max_unpacked_bytes, max_members=max_members))


def _problems(
    file: IO[bytes], *, max_unpacked_bytes: int, max_members: int
) -> Generator[Problem, None, InspectedPackage | None]:
    """Yield each problem when it is found. Return the package if there was none."""
    try:
        entries = read_entries(file, max_members=max_members)
    except InvalidArtifact as error:
        yield error
        return None
    if sum(entry.size for entry in entries) > max_unpacked_bytes:
        yield InvalidArtifact(f"the package unpacks to more than {max_unpacked_bytes} bytes")
        return None
    yield from _wrong_contents(entries)
    if any(entry.path == METADATA_FILE and entry.size > MAX_METADATA for entry in entries):
        yield InvalidMetadata({METADATA_FILE: f"is larger than {MAX_METADATA} bytes"})
        return None
    module_file = next((entry.path for entry in entries if _is_shared_object(entry.path)), "")
    document = BytesIO()
    with tempfile.SpooledTemporaryFile(MAX_IN_MEMORY) as shared_object:
        sinks: dict[str, IO[bytes]] = {METADATA_FILE: document, module_file: shared_object}
        members = {}
        for entry in entries:
            try:
                if not entry.is_directory:
                    members[entry.path] = _read_member(file, entry, sinks.get(entry.path))
            except InvalidArtifact as error:
                yield error
        metadata = module = None
        try:
            if METADATA_FILE in members:
                metadata = _parse_document(document)
        except InvalidMetadata as error:
            yield error
        try:
            if module_file in members:
                module = read_shared_object(shared_object)
        except InvalidArtifact as error:
            yield error
    if metadata is None or module is None:
        return None
    yield from _wrong_claims(metadata, module_file, module.platform, members)
    return InspectedPackage(
        metadata=metadata,
        module_file=module_file,
        platforms=_platforms(metadata, module.platform),
        entry_points=module.entry_points,
        members=tuple(members[path] for path in sorted(members)),
        content_sha256=content_digest(members.values()),
        dependencies=_dependencies(metadata, members),
    )


def _platforms(metadata: ModuleMetadata, platform: str) -> tuple[str, ...]:
    machine = platform.partition("/")[2]
    return tuple(f"{system}/{machine}" for system in metadata.operating_systems) or (platform,)


def _is_shared_object(path: str) -> bool:
    return re.fullmatch(r"[^/]*\.so", path) is not None


def _wrong_contents(entries: tuple[Entry, ...]) -> Iterator[Problem]:
    """Yield problems of the list of files. A package without `module.json` is an incomplete artifact, not bad metadata: the
    vendor documents 400 for a missing or bad artifact, and both files as its content."""
    paths = {entry.path for entry in entries}
    shared_objects = [entry.path for entry in entries if _is_shared_object(entry.path)]
    for path in sorted(paths - {METADATA_FILE, *shared_objects}):
        if not re.fullmatch(r"deps/[^/]*", path):
            yield InvalidArtifact(f"{path!r} does not belong in a package: one .so file, module.json and deps/* do")
    if len(shared_objects) != 1:
        yield InvalidArtifact(f"the package must have one .so file next to module.json, not {len(shared_objects)}")
    if METADATA_FILE not in paths:
        yield InvalidArtifact("the package has no module.json")
    # The name is used in the server's configuration and in MODULE LOAD, where quotes and blanks have a meaning.
    if not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}", path) for path in shared_objects):
        yield InvalidArtifact("the .so file's name must be letters, digits, '_', '.', '+' or '-'")


def _read_member(file: IO[bytes], entry: Entry, sink: IO[bytes] | None) -> Member:
    digest = hashlib.sha256()
    for piece in read_content(file, entry):
        digest.update(piece)
        if sink is not None:
            sink.write(piece)
    return Member(path=entry.path, size=entry.size, sha256=digest.hexdigest())


def _parse_document(document: BytesIO) -> ModuleMetadata:
    try:
        value = strict_json.parse(document.getvalue(), max_bytes=MAX_METADATA)
    except strict_json.InvalidJson as error:
        raise InvalidMetadata({METADATA_FILE: str(error)}) from None
    return parse_metadata(value, required=PACKAGE_FIELDS)


def _wrong_claims(
    metadata: ModuleMetadata, module_file: str, platform: str, members: Mapping[str, Member]
) -> Iterator[Problem]:
    """Yield what `module.json` says that does not match the other files."""
    wrong = {}
    if metadata.module_file not in {"", module_file}:
        wrong["module_file"] = f"is not the package's {module_file}"
    claimed = str(metadata.document.get("architecture", "")).lower()
    system, _, machine = platform.partition("/")
    if MACHINE_ALIASES.get(claimed, claimed) not in {"", machine}:
        wrong["architecture"] = f"is not the shared object's {machine}"
    if str(metadata.document.get("os", "")).lower() not in {"", system}:
        wrong["os"] = f"is not the shared object's {system}"
    files = files_digest(members.values())
    if any(each["files_sha256"] != files for each in metadata.document.get("scratch_successes", ())):
        wrong["scratch_successes"] = "are of other files than those of the package: pack the module again"
    if wrong:
        yield InvalidMetadata(wrong)
    if metadata.sha256 not in {"", members[module_file].sha256}:
        yield InvalidArtifact(f"{module_file} is not the file that module.json was made for: its SHA-256 differs")
    yield from _wrong_dependencies(metadata, members)


def _wrong_dependencies(metadata: ModuleMetadata, members: Mapping[str, Member]) -> Iterator[Problem]:
    """Yield wrong dependencies. A dependency with an address or a digest is a file, and nodes get files only from the
    package. Any other dependency is the name of a module."""
    packed = {_packed_name(path): members[path] for path in sorted(members) if path.startswith(DEPENDENCIES_DIRECTORY)}
    for name, dependency in metadata.document.get("dependencies", {}).items():
        file = packed.get(name)
        if file is None and (dependency.get("sha256") or dependency.get("url")):
            yield InvalidArtifact(
                f"{DEPENDENCIES_DIRECTORY}{name}.tgz is declared in module.json and not in the package; nothing is "
                "downloaded from elsewhere"
            )
        elif file is not None and dependency.get("sha256", file.sha256) != file.sha256:
            yield InvalidArtifact(f"{file.path} is not the file that module.json was made for: its SHA-256 differs")


def _dependencies(metadata: ModuleMetadata, members: Mapping[str, Member]) -> tuple[str, ...]:
    return tuple(sorted({*metadata.dependencies, *packed_names(members)}))


def packed_names(paths: Iterable[str]) -> set[str]:
    """Return the names of the dependencies in the package. RAMP packs one as `deps/<name>.tgz`."""
    return {_packed_name(path) for path in paths if path.startswith(DEPENDENCIES_DIRECTORY)}


def _packed_name(path: str) -> str:
    return path.removeprefix(DEPENDENCIES_DIRECTORY).removesuffix(".tgz")
