"""Takes packages in, and deletes artifacts."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings

from artifacts_app.decider import ARTIFACT, AddBuild, DeleteArtifact
from artifacts_app.errors import ArtifactNotFoundError, InvalidArtifactMetadataError, UnreadableArtifactError
from artifacts_app.events import ArtifactUploaded, artifact_stream
from artifacts_app.models import Build
from artifacts_app.package import InspectedPackage, InvalidArtifact, inspect_package
from artifacts_app.storage import Spool, delete_package, stored_keys
from eventstore.transact import load_state, retry_on_conflict
from eventstore.store import Append, append, database_now
from modules_app.metadata import InvalidMetadata
from modules_app.services import DescribePackage, ForgetPackages, module_changes, module_uid, registration

MAX_MEMBERS = 1000
#: How long bytes without an event are left alone: an upload may be between its blob and its event.
ORPHAN_GRACE = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """The outcome of an upload; `created` is False when the same build was there already."""

    module_name: str
    version: int
    module_uid: str
    platform: str
    content_sha256: str
    created: bool


def inspect(spool: Spool) -> InspectedPackage:
    """What is in the package. Raises: `UnreadableArtifactError`, `InvalidArtifactMetadataError`."""
    spool.file.seek(0)
    try:
        return inspect_package(
            spool.file, max_unpacked_bytes=settings.ENVIRONMENT.max_unpacked_bytes, max_members=MAX_MEMBERS
        )
    except InvalidArtifact as error:
        raise UnreadableArtifactError(str(error)) from error
    except InvalidMetadata as error:
        raise InvalidArtifactMetadataError(str(error)) from error


def add_build(spool: Spool, *, register: bool = False) -> Upload:
    """Check the package, store its bytes, record the build; with `register` its module object too.

    Bytes first, event second: what fails in between leaves bytes that nothing names, and they are removed.
    Raises: `ArtifactError`, `modules_app.errors.ModuleError`.
    """
    package = inspect(spool)
    metadata = package.metadata
    stream = artifact_stream(metadata.module_name, metadata.version)
    probe = _build(package, spool, storage_key="")
    if not _decided(stream, probe, package, register=register):
        return _upload(probe, created=False)

    build = _build(package, spool, storage_key=spool.store())
    created = False
    try:
        created = _record(stream, build, package, register=register)
    finally:
        if not created:
            delete_package(build.storage_key)
    return _upload(build, created=created)


@retry_on_conflict
def _record(stream: str, build: ArtifactUploaded, package: InspectedPackage, *, register: bool) -> bool:
    appends = _decided(stream, build, package, register=register)
    recorded = append(*appends)
    return any(isinstance(each.event, ArtifactUploaded) for each in recorded)


def _decided(stream: str, build: ArtifactUploaded, package: InspectedPackage, *, register: bool) -> list[Append]:
    """Changes of the artifact and of its module, empty ones left out."""
    loaded = load_state(stream, ARTIFACT)
    uid = module_uid(build.module_name, build.version)
    describe = DescribePackage(uid=uid, platform=build.platform, document=build.document)
    commands = (describe, registration(package.metadata)) if register else (describe,)
    appends = [loaded.append(ARTIFACT.decide(loaded.state, AddBuild(build=build))), module_changes(*commands)]
    return [each for each in appends if each.events]


def _build(package: InspectedPackage, spool: Spool, *, storage_key: str) -> ArtifactUploaded:
    return ArtifactUploaded(
        module_name=package.metadata.module_name,
        version=package.metadata.version,
        platform=package.platform,
        content_sha256=package.content_sha256,
        package_sha256=spool.sha256,
        size=spool.size,
        storage_key=storage_key,
        module_file=package.module_file,
        members=package.members,
        dependencies=package.metadata.dependencies,
        document=package.metadata.document,
    )


def _upload(build: ArtifactUploaded, *, created: bool) -> Upload:
    return Upload(
        module_name=build.module_name,
        version=build.version,
        module_uid=module_uid(build.module_name, build.version),
        platform=build.platform,
        content_sha256=build.content_sha256,
        created=created,
    )


def artifact_deletion(module_name: str, version: int) -> Append:
    """What to append to delete all builds, nothing if there are none."""
    loaded = load_state(artifact_stream(module_name, version), ARTIFACT)
    return loaded.append(ARTIFACT.decide(loaded.state, DeleteArtifact(module_name=module_name, version=version)))


@retry_on_conflict
def delete_artifact(module_name: str, version: int, *, refuse_if_used: Callable[[str, int], None]) -> None:
    """Raises: `ArtifactNotFoundError`, and what `refuse_if_used` raises. The bytes are swept later."""
    deletion = artifact_deletion(module_name, version)
    if not deletion.events:
        raise ArtifactNotFoundError
    refuse_if_used(module_name, version)
    append(deletion, module_changes(ForgetPackages(uid=module_uid(module_name, version))))


def sweep_storage() -> int:
    """Remove bytes that no build names, once they are a day old. Returns how many packages were removed."""
    before = database_now() - ORPHAN_GRACE
    named = set(Build.objects.values_list("storage_key", flat=True))
    orphans = [key for key, stored_at in stored_keys() if key not in named and stored_at < before]
    for key in orphans:
        delete_package(key)
    return len(orphans)
