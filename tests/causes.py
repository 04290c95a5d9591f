"""Whether each event's cause leads back to where a story may begin."""

from collections.abc import Iterable

from eventstore import RecordedEvent, is_person
from rollout.process.timeouts import CLOCK


def begins(recorded: RecordedEvent) -> bool:
    """A person asked for it, a node said it of its own, or a deadline passed."""
    return is_person(recorded.actor) or recorded.actor.startswith("node:") or recorded.actor == CLOCK


def gaps(events: Iterable[RecordedEvent]) -> list[str]:
    """Events that neither begin a story nor follow from an earlier event, in words."""
    known: set[str] = set()
    found = []
    for each in events:
        metadata = each.metadata
        follows = metadata.causation_id in known if metadata.causation_id else begins(each)
        if not (follows and metadata.correlation_id and metadata.requested_by):
            found.append(f"{each.position} {each.type} by {each.actor}: caused by {metadata.causation_id or 'nothing'}")
        known.add(each.event_id.hex)
    return found
