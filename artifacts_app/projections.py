"""Writes artifact events to `Build`."""

import json
from collections.abc import Sequence

import msgspec

from artifacts_app.events import ArtifactDeleted, ArtifactUploaded
from artifacts_app.models import Build
from eventstore import RecordedEvent


class ArtifactProjection:
    name = "artifacts"
    version = 2
    handles = (ArtifactUploaded, ArtifactDeleted)
    tables = (Build,)

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        added: dict[str, Build] = {}
        for each in batch:
            match each.event:
                case ArtifactUploaded():
                    row = _row(each)
                    added[row.key] = row
                case ArtifactDeleted(module_name=name, version=version):
                    added = {k: row for k, row in added.items() if (row.module_name, row.version) != (name, version)}
                    Build.objects.filter(module_name=name, version=version).delete()
        Build.objects.bulk_create(added.values())


def _row(recorded: RecordedEvent) -> Build:
    event: ArtifactUploaded = recorded.event
    return Build(
        key=f"{event.module_name}:{event.version}:{event.platform}",
        module_name=event.module_name,
        version=event.version,
        platform=event.platform,
        content_sha256=event.content_sha256,
        package_sha256=event.package_sha256,
        size=event.size,
        storage_key=event.storage_key,
        module_file=event.module_file,
        members=msgspec.json.encode(event.members).decode(),
        entry_points=json.dumps(event.entry_points),
        dependencies=json.dumps(event.dependencies),
        document=json.dumps(event.document, sort_keys=True),
        uploaded_at=recorded.recorded_at,
        uploaded_by=recorded.shown_actor,
    )
