"""Events of `artifact:<name>:<version>`: the builds of one module version, one for each platform."""

from typing import Any

from artifacts_app.manifest import Member
from eventstore import event


def artifact_stream(module_name: str, version: int) -> str:
    return f"artifact:{module_name}:{version}"


@event("artifact.uploaded.v1")
class ArtifactUploaded:
    """A build for one platform was uploaded.

    `platform`: such as `linux/x86_64`, or `rhel9/x86_64` for one operating system. `content_sha256`: the digest of the
    package's files. `package_sha256`: the digest of the package, the .zip file. `size`: the package's size, bytes.
    `storage_key`: where the storage has the package. `module_file`: the file that a server loads. `members`: all files of
    the package. `dependencies`: names of the modules that this one needs. `document`: the package's module.json.
    `entry_points`: the functions that `module_file` exports for servers; empty in older logs."""

    module_name: str
    version: int
    platform: str
    content_sha256: str
    package_sha256: str
    size: int
    storage_key: str
    module_file: str
    members: tuple[Member, ...]
    dependencies: tuple[str, ...]
    document: dict[str, Any]
    entry_points: tuple[str, ...] = ()


@event("artifact.deleted.v1")
class ArtifactDeleted:
    """All builds of the version were deleted."""

    module_name: str
    version: int


ArtifactEvent = ArtifactUploaded | ArtifactDeleted
