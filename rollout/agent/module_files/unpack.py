"""Unpacks a package into a directory, and checks each member against the manifest on the way."""

import hashlib
import os
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from durable import make_directory, sync_directory
from rollout.agent.deadline import Deadline
from rollout.agent.failure import Failure
from rollout.messages import Member, Package, Reason, content_digest

CHUNK = 256 * 1024
_EXECUTABLE, _READABLE = 0o755, 0o644


def unpack(package_file: Path, package: Package, to: Path, *, deadline: Deadline) -> None:
    """Unpack exactly the members of the manifest into `to`, fsynced. The module is executable, as Valkey requires.

    Raises: `Failure` (checksum_mismatch, node_deadline).
    """
    check_manifest(package)
    try:
        with zipfile.ZipFile(package_file) as archive:
            _check_names(archive, package)
            make_directory(to, mode=_EXECUTABLE)
            for member in package.members:
                mode = _EXECUTABLE if member.path == package.module_file else _READABLE
                _extract(archive, member, to / member.path, mode=mode, deadline=deadline)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError) as error:
        raise Failure(Reason.CHECKSUM_MISMATCH, f"The package cannot be unpacked: {error}.") from error
    _sync_all(to)


def check_manifest(package: Package) -> None:
    """Check that the manifest is consistent, and its paths stay in their directory. Raises: `Failure` (checksum_mismatch)."""
    for member in package.members:
        path = PurePosixPath(member.path)
        if (
            path.is_absolute()
            or ".." in path.parts
            or str(path) != member.path
            or member.path == "."
            or "\0" in member.path
        ):
            raise Failure(Reason.CHECKSUM_MISMATCH, f"The manifest names `{member.path}`, which is not a plain path.")
    if package.module_file not in {member.path for member in package.members}:
        raise Failure(Reason.CHECKSUM_MISMATCH, f"The manifest does not contain the module `{package.module_file}`.")
    if content_digest(package.members) != package.content_sha256:
        raise Failure(Reason.CHECKSUM_MISMATCH, "The manifest's members are not those of the build it names.")


def _check_names(archive: zipfile.ZipFile, package: Package) -> None:
    found = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    expected = sorted(member.path for member in package.members)
    if found != expected:
        missing, extra = sorted({*expected} - {*found}), sorted({*found} - {*expected})
        raise Failure(
            Reason.CHECKSUM_MISMATCH,
            f"The package's members are not those of its manifest: missing {missing}, not expected {extra}.",
        )


def _extract(archive: zipfile.ZipFile, member: Member, to: Path, *, mode: int, deadline: Deadline) -> None:
    make_directory(to.parent, mode=_EXECUTABLE)
    digest, written = hashlib.sha256(), 0
    with archive.open(member.path) as source, to.open("xb") as file:
        while (chunk := source.read(CHUNK)) and written <= member.size:
            deadline.remaining()
            digest.update(chunk)
            written += len(chunk)
            file.write(chunk)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    if written != member.size or digest.hexdigest() != member.sha256:
        raise Failure(Reason.CHECKSUM_MISMATCH, f"`{member.path}` in the package differs from its manifest.")


def _sync_all(directory: Path) -> None:
    for each in directory.rglob("*"):
        if each.is_dir():
            sync_directory(each)
    sync_directory(directory)
