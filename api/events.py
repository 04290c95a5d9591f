"""Events as JSON, for the API and for webhooks."""

from typing import Any

import msgspec

from api.fields import rfc3339
from eventstore import RecordedEvent, shown


def event_document(recorded: RecordedEvent) -> dict[str, Any]:
    """Return the event as the API shows it and webhooks receive it."""
    return {
        "position": recorded.position,
        "stream": recorded.stream,
        "version": recorded.version,
        "type": recorded.type,
        "recorded_at": rfc3339(recorded.recorded_at),
        "event_id": recorded.event_id.hex,
        "actor": recorded.shown_actor,
        "requested_by": shown(recorded.metadata.requested_by),
        "correlation_id": recorded.metadata.correlation_id,
        "causation_id": recorded.metadata.causation_id,
        "data": msgspec.to_builtins(recorded.event),
    }
