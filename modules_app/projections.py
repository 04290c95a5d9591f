"""Writes module events to `Module`."""

import json
from collections.abc import Sequence

from eventstore import RecordedEvent
from modules_app.events import ModuleDeleted, ModuleRegistered
from modules_app.models import Module


class ModuleProjection:
    name = "modules"
    version = 2
    handles = (ModuleRegistered, ModuleDeleted)
    tables = (Module,)

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        last = {each.event.uid: each for each in batch}
        Module.objects.filter(uid__in=list(last)).delete()
        Module.objects.bulk_create(_row(each) for each in last.values() if isinstance(each.event, ModuleRegistered))


def _row(recorded: RecordedEvent) -> Module:
    event: ModuleRegistered = recorded.event
    document = {"is_bundled": False, **event.document, "uid": event.uid}
    return Module(
        uid=event.uid,
        module_name=event.module_name,
        version=event.version,
        document=json.dumps(document, sort_keys=True),
        registered_at=recorded.recorded_at,
        registered_by=recorded.shown_actor,
    )
