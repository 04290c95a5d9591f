"""What servers logged during attempts that failed: kept for some days, outside of the event log."""

from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings

from eventstore import database_now, delete_unlocked
from rollout.domain.server_words import telling_line
from rollout.messages import LONGEST_LOG_LINE, Report
from rollout.models import ServerLog


def keep_server_logs(reports: Iterable[Report]) -> None:
    """Keep the lines of reports that were recorded, in the caller's transaction. The first lines of an attempt stay."""
    now = database_now()
    rows = [
        ServerLog(
            rollout=each.rollout,
            node=each.node,
            generation=each.generation,
            attempt=each.attempt,
            lines=[_escaped(line) for line in each.server_log],
            telling=telling_line([_escaped(line) for line in each.server_log]),
            recorded_at=now,
        )
        for each in reports
        if each.server_log
    ]
    if rows:
        ServerLog.objects.bulk_create(sorted(rows, key=str), ignore_conflicts=True)


def forget_server_logs() -> int:
    """Delete the lines that are older than MODFLEET_FAILURE_LOG_DAYS. Return the number of attempts that had some."""
    kept = timedelta(days=settings.ENVIRONMENT.failure_log_days)
    return delete_unlocked(ServerLog.objects.filter(recorded_at__lte=database_now() - kept))


def _escaped(line: str) -> str:
    """Return the line with control characters escaped, whatever the node has sent."""
    shown = (each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)
    return "".join(shown)[:LONGEST_LOG_LINE]
