"""Counts the outcomes of operations: a counter that survives restarts, and is the same after a rebuild."""

from collections import defaultdict
from collections.abc import Sequence

from eventstore import RecordedEvent
from operations.models import Outcome
from rollout.domain.placement.events import OperationFinished


class OutcomeProjection:
    name = "outcomes"
    version = 1
    handles = (OperationFinished,)
    tables = (Outcome,)

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        ended: dict[tuple[str, str], list[OperationFinished]] = defaultdict(list)
        for each in batch:
            ended[each.event.phase, each.event.reason or ""].append(each.event)
        rows = Outcome.objects.in_bulk([_key(*outcome) for outcome in ended])
        for (phase, reason), events in ended.items():
            key = _key(phase, reason)
            row = rows.setdefault(key, Outcome(key=key, phase=phase, reason=reason, count=0, seconds=0.0, measured=0))
            for event in events:
                row.count += 1
                if event.seconds is not None:
                    row.seconds += event.seconds
                    row.measured += 1
        # Read and write back, without `F()`: the append has the lock, and one statement is enough for all rows.
        Outcome.objects.bulk_create(
            rows.values(),
            update_conflicts=True,
            unique_fields=["key"],
            update_fields=["count", "seconds", "measured"],
        )


def _key(phase: str, reason: str) -> str:
    return f"{phase}:{reason}"
