"""The floor: what nobody can leave out to put a package on a node's disk, and nothing else.

One process, one loop: read the package, compare its SHA-256, unpack each member and compare its SHA-256, fsync files
and folders, rename. No control plane, no broker, no HTTP, no journal, no reports.
"""

import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

CHUNK = 256 * 1024


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_of_members(package: Path) -> dict[str, str]:
    """What the floor compares with: it is known before the work starts, as a manifest is."""
    with zipfile.ZipFile(package) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def install_everywhere(
    package: Path, *, digest: str, members: Mapping[str, str], module: str, targets: Sequence[Path]
) -> None:
    """Each of `targets` holds the members of `package`, and is there whole or not at all."""
    for target in targets:
        install(package, digest=digest, members=members, module=module, target=target)


def install(package: Path, *, digest: str, members: Mapping[str, str], module: str, target: Path) -> None:
    assert digest_of(package) == digest
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.tmp")
    fresh.mkdir(mode=0o755)
    with zipfile.ZipFile(package) as archive:
        for name, expected in members.items():
            assert _extract(archive, name, fresh / name, mode=0o755 if name == module else 0o644) == expected
    _sync_directory(fresh)
    fresh.rename(target)
    _sync_directory(target.parent)


def _extract(archive: zipfile.ZipFile, name: str, to: Path, *, mode: int) -> str:
    digest = hashlib.sha256()
    with archive.open(name) as source, to.open("wb") as file:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
