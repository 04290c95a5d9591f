"""The events of `artifact:<name>:<version>`: the builds of one module version, one per platform."""

from typing import Any

from artifacts_app.manifest import Member
from eventstore import event


def artifact_stream(module_name: str, version: int) -> str:
    return f"artifact:{module_name}:{version}"


@event("artifact.uploaded.v1")
class ArtifactUploaded:
    """A build for one platform: `linux/x86_64`, or `rhel9/x86_64` for one operating system.

    `size` is the package's size in bytes, `storage_key` its place in the storage.
    """

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


@event("artifact.deleted.v1")
class ArtifactDeleted:
    """All builds of the version are deleted."""

    module_name: str
    version: int


ArtifactEvent = ArtifactUploaded | ArtifactDeleted
