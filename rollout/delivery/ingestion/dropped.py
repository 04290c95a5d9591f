"""The counters of dropped messages, which `/metrics` shows."""

from django.db import transaction
from django.db.models import F

from rollout.models import DroppedMessages
from rollout.transport import DROPPED


def record_dropped() -> None:
    """Add the messages that this process has dropped since the last call to the counters."""
    counts = DROPPED.take()
    if not counts:
        return
    try:
        with transaction.atomic():
            for (queue, reason), count in sorted(counts.items()):
                key = f"{queue}:{reason}"
                row = DroppedMessages(key=key, queue=queue, reason=reason, count=0)
                DroppedMessages.objects.bulk_create([row], ignore_conflicts=True)
                DroppedMessages.objects.filter(key=key).update(count=F("count") + count)
    except BaseException:
        DROPPED.put_back(counts)
        raise
