"""Until when a node may answer, and what becomes of all waits when the database's clock was set back."""

import json
from datetime import datetime, timedelta

from rollout.models import Operation, Rollout
from rollout.projections.rollout_document import document
from rollout.projections.rows import load, no_later_than, rows_later_than, save

#: Seconds after a release in which an agent may still begin the operation, at most: half the life of a download link, and
#: the time of a repetition.
BEGINS_SECONDS = 600.0


def deadline(rollout: Rollout, released_at: datetime) -> datetime:
    """Return until when the node has to end an operation of the rollout."""
    return released_at + timedelta(seconds=rollout.strategy["node_deadline_seconds"])


def may_run_until(rollout: Rollout, now: datetime) -> datetime:
    """Return until when the node may carry out a command that it has not answered."""
    return deadline(rollout, now) + timedelta(seconds=BEGINS_SECONDS)


def begin_waits_again(now: datetime) -> None:
    """Let no wait begin later than `now`, nor last longer than if it began now: the clock had run ahead, and was set back."""
    rollouts = rows_later_than(Rollout, now)
    for row in rollouts:
        no_later_than(row, now)
        row.document = json.dumps(document(row))
    save(Rollout, rollouts)
    operations = rows_later_than(Operation, now)
    by_uid = load(Rollout, (each.rollout for each in operations))
    for each in operations:
        rollout = by_uid[each.rollout]
        ready_at = each.ready_at and min(each.ready_at, now + (each.ready_at - each.scheduled_at))
        deadline_at = each.deadline_at and min(each.deadline_at, deadline(rollout, now))
        until = each.may_run_until and min(each.may_run_until, may_run_until(rollout, now))
        no_later_than(each, now)
        each.ready_at, each.deadline_at, each.may_run_until = ready_at, deadline_at, until
    save(Operation, operations)
