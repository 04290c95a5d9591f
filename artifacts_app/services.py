"""Records uploaded packages, and deletes artifacts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from django.conf import settings
from django.db import Error, transaction

from accounts.events import CLUSTER_STREAM
from accounts.selectors import require_modules_upload_allowed
from api.errors import ApiError
from api.failures import Cause, database_cause
from artifacts_app.decider import ARTIFACT, AddBuild, DeleteArtifact
from artifacts_app.errors import (
    ArtifactExistsError,
    ArtifactNotFoundError,
    InvalidArtifactMetadataError,
    UnreadableArtifactError,
)
from artifacts_app.events import ArtifactUploaded, artifact_stream
from artifacts_app.models import Build
from artifacts_app.package import InspectedPackage, InvalidArtifact, inspect_package
from artifacts_app.selectors import refuse_other_spelling
from artifacts_app.storage import Spool, delete_package, is_kept, remove_abandoned_spools, stored_keys
from artifacts_app.vetoes import DELETION
from eventstore import (
    Append,
    ConcurrencyError,
    Condition,
    append,
    database_now,
    give_connection_back,
    head,
    load_state,
    retry_on_conflict,
)
from modules_app.metadata import InvalidMetadata
from modules_app.services import module_uid, package_described, packages_forgotten

MAX_MEMBERS = 1000
#: How long bytes without an event are kept: an upload stores its bytes before its event.
ORPHAN_GRACE = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """The outcome of an upload. `created` is False if the same build was there already."""

    module_name: str
    version: int
    module_uid: str
    platforms: tuple[str, ...]
    content_sha256: str
    created: bool


def inspect(spool: Spool) -> InspectedPackage:
    """Return the contents of the package. Raises: `UnreadableArtifactError`, `InvalidArtifactMetadataError`."""
    spool.file.seek(0)
    try:
        return inspect_package(
            spool.file, max_unpacked_bytes=settings.ENVIRONMENT.max_unpacked_bytes, max_members=MAX_MEMBERS
        )
    except InvalidArtifact as error:
        raise UnreadableArtifactError(str(error)) from error
    except InvalidMetadata as error:
        raise InvalidArtifactMetadataError(str(error)) from error


def _nothing_else(_: Upload) -> None:
    pass


def add_build(spool: Spool, *, register: bool = False, also: Callable[[Upload], None] = _nothing_else) -> Upload:
    """Check the package, store its bytes and record the build. With `register`, also record its module object if it has none.

    `also` is called in the transaction of the events, after them. All slow steps happen before that transaction.
    Bytes first, event second: a failure in between leaves bytes without a build, which are swept later. Bytes that the
    storage has lost are stored again.
    Raises: `accounts.errors.ModulesUploadDisabledError`, `ArtifactError`, `modules_app.errors.ModuleError`, what `also` raises.
    """
    give_connection_back()  # to inspect and store a large package takes long
    package = inspect(spool)
    build = _build(package, spool)
    if _has_new_build(_decided(build, package, register=register)):
        give_connection_back()
        build = replace(build, storage_key=spool.store())
    else:
        _restore(build, spool)
    try:
        upload = _record(build, package, also, register=register)
    except (ApiError, ConcurrencyError):
        _drop(build)
        raise
    except Error as error:
        if database_cause(error) in {
            Cause.FULL,
            Cause.LOCKED,
            Cause.READ_ONLY,
        }:  # otherwise the commit may have succeeded
            _drop(build)
        raise
    if not upload.created:
        _drop(build)
    return upload


def _restore(build: ArtifactUploaded, spool: Spool) -> None:
    """Store the bytes of a build that the storage has lost. Raises: `ArtifactExistsError` if they are not the same."""
    row = Build.objects.filter(module_name=build.module_name, version=build.version, platform=build.platform).first()
    give_connection_back()
    if row is None or is_kept(row.storage_key):
        return
    if row.package_sha256 != spool.sha256:
        raise ArtifactExistsError(
            "The storage has lost the package of this build, and this package has the same content in other bytes. "
            "Upload the first package again, or delete the artifact."
        )
    spool.store(key=row.storage_key)


def _drop(build: ArtifactUploaded) -> None:
    if build.storage_key:
        delete_package(build.storage_key)


@retry_on_conflict
def _record(
    build: ArtifactUploaded, package: InspectedPackage, also: Callable[[Upload], None], *, register: bool
) -> Upload:
    with transaction.atomic():
        # A body may take minutes: uploads were allowed when it began, and must still be allowed.
        allowed = Condition(after=head(), streams=[CLUSTER_STREAM])
        require_modules_upload_allowed()
        unique = refuse_other_spelling(build.module_name)
        appends = _decided(build, package, register=register)
        created = _has_new_build(appends)
        if created and not build.storage_key:  # the same build was there before, and was deleted in between
            raise ConcurrencyError
        append(*appends, unless=[allowed, unique])
        upload = _upload(build, package, created=created)
        also(upload)
    return upload


def _has_new_build(appends: Sequence[Append]) -> bool:
    return any(isinstance(event, ArtifactUploaded) for each in appends for event in each.events)


def _decided(build: ArtifactUploaded, package: InspectedPackage, *, register: bool) -> list[Append]:
    """Return the changes of the artifact, which gets a build for each platform, and of its module."""
    loaded = load_state(artifact_stream(build.module_name, build.version), ARTIFACT)
    added = [
        event
        for platform in package.platforms
        for event in ARTIFACT.decide(loaded.state, AddBuild(build=replace(build, platform=platform)))
    ]
    return [loaded.append(added), package_described(package.metadata, package.platforms, register=register)]


def _build(package: InspectedPackage, spool: Spool) -> ArtifactUploaded:
    """Return the build for the first platform of the package. Its bytes are not stored yet."""
    return ArtifactUploaded(
        module_name=package.metadata.module_name,
        version=package.metadata.version,
        platform=package.platforms[0],
        content_sha256=package.content_sha256,
        package_sha256=spool.sha256,
        size=spool.size,
        storage_key="",
        module_file=package.module_file,
        members=package.members,
        dependencies=package.dependencies,
        document=package.metadata.document,
        entry_points=package.entry_points,
    )


def _upload(build: ArtifactUploaded, package: InspectedPackage, *, created: bool) -> Upload:
    return Upload(
        module_name=build.module_name,
        version=build.version,
        module_uid=module_uid(build.module_name, build.version),
        platforms=package.platforms,
        content_sha256=build.content_sha256,
        created=created,
    )


def artifact_deletion(module_name: str, version: int) -> Append:
    """Return the append that deletes all builds. It has no events if there are no builds."""
    loaded = load_state(artifact_stream(module_name, version), ARTIFACT)
    return loaded.append(ARTIFACT.decide(loaded.state, DeleteArtifact(module_name=module_name, version=version)))


@retry_on_conflict
def delete_artifact(module_name: str, version: int) -> None:
    """Delete an artifact; its bytes are swept later. Raises: `ArtifactNotFoundError`, and the errors of vetoes."""
    deletion = artifact_deletion(module_name, version)
    if not deletion.events:
        raise ArtifactNotFoundError
    vetoes = DELETION.conditions(module_name, version)
    append(deletion, packages_forgotten(module_uid(module_name, version)), unless=vetoes)


def sweep_storage() -> int:
    """Delete packages without a build that are older than a day. Return their number."""
    before = database_now() - ORPHAN_GRACE
    named = set(Build.objects.values_list("storage_key", flat=True))
    orphans = [key for key, stored_at in stored_keys() if key not in named and stored_at < before]
    for key in orphans:
        delete_package(key)
    remove_abandoned_spools(before)
    return len(orphans)
