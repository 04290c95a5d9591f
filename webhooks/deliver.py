"""Claims webhooks with events to deliver, and records the outcome: at least once, in the order of the log.

Each webhook is served by itself. It is claimed by a lease (`rollout.delivery.leases`), so any number of control workers
may run. The cursor moves after the receiver's answer: after a crash in between, the last acknowledged events are
delivered again, with the same ids. Nothing here waits for a receiver: `webhooks.worker` does.
"""

import logging
import random
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import QuerySet

from eventstore import RecordedEvent, UnknownEventTypeError, database_now, head
from rollout.delivery import leases
from rollout.delivery.leases import RELEASED, backoff, latest_end, leased, may_be_claimed
from webhooks.models import Webhook
from webhooks.selectors import subscription_of
from webhooks.services import disable_failing_webhook

logger = logging.getLogger(__name__)

#: The wait after the first failure, doubled by each further one, and the longest wait, seconds. It is shortened by up to
#: half at random, so that webhooks that failed together are not tried again together.
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 300.0
#: A webhook is disabled when all its attempts have failed for so long.
DISABLED_AFTER = timedelta(hours=24)
MAX_ERROR_LENGTH = 500
#: How many events a claim reads at a time.
AHEAD = 100


@dataclass(slots=True, kw_only=True)
class Claim:
    """A claimed webhook, and the events that wait for it. Changes as they are acknowledged."""

    uid: str
    lease: UUID
    url: str = field(repr=False)
    secret: str = field(repr=False)
    types: Sequence[str]
    #: The next events, in order; empty when the claim has ended.
    waiting: deque[RecordedEvent] = field(repr=False)
    #: The events after those.
    rest: Iterator[RecordedEvent] = field(repr=False)
    #: Position of the newest event that was acknowledged and not recorded yet.
    reached: int | None = None

    def acknowledge(self) -> None:
        """Remove the first waiting event: the receiver has acknowledged it."""
        self.reached = self.waiting.popleft().position


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The claimed webhooks, and when to claim again even if the log does not grow."""

    #: End of the log when the webhooks were read.
    position: int
    claims: tuple[Claim, ...]
    #: Whether any webhook is enabled.
    is_any_enabled: bool
    #: Seconds until the next attempt; None if no attempt is scheduled.
    seconds_to_next: float | None


def claim_due(*, busy: Collection[str], most: int, least_skip: int = 1) -> Due:
    """Claim up to `most` webhooks for which an event waits. Those in `busy` are skipped: this process serves them already.

    The cursors of webhooks without such an event are moved to the end of the log, if that is `least_skip` positions or
    more away.
    """
    position, now = head(), database_now()
    rows = list(Webhook.objects.filter(enabled=True))
    claims: list[Claim] = []
    moments: list[datetime] = []
    without_events: list[str] = []
    for row in rows:
        if row.uid in busy or len(claims) == most:
            continue
        until = max(filter(None, (row.next_attempt_at, row.leased_until)), default=now)
        if now < until <= latest_end(now, longest=max(leases.LEASE_SECONDS, LONGEST_RETRY_SECONDS)):
            moments.append(until)
            continue
        try:
            rest = subscription_of(row).pending()
            first = next(rest, None)
        except UnknownEventTypeError as error:
            _wait_for_newer_version(row, error, now)
            continue
        if first is None:
            without_events += [row.uid] if row.position <= position - least_skip else []
        elif (lease := _claim(row, now)) is not None:
            claims.append(_claimed(row, lease, first, rest))
    if without_events:
        _move_on(without_events, position)
    return Due(
        position=position,
        claims=tuple(claims),
        is_any_enabled=bool(rows),
        seconds_to_next=(min(moments) - now).total_seconds() if moments else None,
    )


@transaction.atomic
def _move_on(uids: Collection[str], position: int) -> None:
    """Move the cursors to `position`, in one write and never backwards: another worker may have delivered newer events.

    Rows that another worker is writing are skipped.
    """
    behind = Webhook.objects.filter(uid__in=uids, lease=None, position__lt=position).order_by()
    free = list(behind.select_for_update(skip_locked=True).values_list("uid", flat=True))
    Webhook.objects.filter(uid__in=free).update(position=position)


def _claim(row: Webhook, now: datetime) -> UUID | None:
    """Claim the webhook. Return None if another worker was first, even if that one has released it since."""
    lease = uuid4()
    as_read = Webhook.objects.filter(
        may_be_claimed(now),
        uid=row.uid,
        enabled=True,
        position=row.position,
        next_attempt_at=row.next_attempt_at,
    )
    return lease if as_read.update(**leased(lease, now)) else None


def record_outcome(claim: Claim, error: str | None) -> None:
    """Move the cursor to the last acknowledged event, and read the next events. `error` is why the next one failed, if so.

    The webhook is released when no event waits, or when an attempt has failed: the next attempt is made after a while.
    """
    now = database_now()
    row = _claimed_row(claim).first()
    if row is None:  # deleted, or claimed by another worker
        claim.waiting.clear()
        return
    changes = _progress(claim, now)
    if error is None:
        _refill(claim, row)
    else:
        claim.waiting.clear()
        changes |= _failure(row, error[:MAX_ERROR_LENGTH], now, is_first=claim.reached is not None)
    changes |= leased(claim.lease, now) if claim.waiting else RELEASED
    if error is not None and now - changes["failing_since"] >= DISABLED_AFTER:
        _disable(row, claim, error[:MAX_ERROR_LENGTH])
    _claimed_row(claim).update(**changes)
    claim.reached = None


def release(claim: Claim) -> None:
    """Release a webhook before its events are delivered."""
    _claimed_row(claim).update(**_progress(claim, database_now()), **RELEASED)


def _progress(claim: Claim, now: datetime) -> dict[str, Any]:
    if claim.reached is None:
        return {}
    return {
        "position": claim.reached,
        "failures": 0,
        "failing_since": None,
        "last_error": "",
        "last_delivered_at": now,
        "next_attempt_at": None,
    }


def _failure(row: Webhook, last_error: str, now: datetime, *, is_first: bool) -> dict[str, Any]:
    failures = 0 if is_first else row.failures
    wait = backoff(failures, first=FIRST_RETRY_SECONDS, longest=LONGEST_RETRY_SECONDS)
    return {
        "failures": failures + 1,
        "failing_since": now if is_first or row.failing_since is None else row.failing_since,
        "last_error": last_error,
        "next_attempt_at": now + timedelta(seconds=wait * random.uniform(0.5, 1.0)),  # noqa: S311  # no secret
    }


def _disable(row: Webhook, claim: Claim, last_error: str) -> None:
    hours = DISABLED_AFTER.total_seconds() / 3600
    logger.warning("webhook %s is disabled: %s", row, last_error)
    reason = f"Nothing could be delivered for {hours:.0f} hours. The last attempt: {last_error}"
    disable_failing_webhook(row.uid, lease=claim.lease, last_error=last_error, reason=reason)


def _claimed_row(claim: Claim) -> QuerySet[Webhook]:
    return Webhook.objects.filter(uid=claim.uid, lease=claim.lease)


def _refill(claim: Claim, row: Webhook) -> None:
    """Read the next events. None if the webhook was changed: then it must be claimed again."""
    if not row.enabled or row.types != claim.types:
        claim.waiting.clear()
        return
    claim.url, claim.secret = row.url, row.secret
    if not claim.waiting:
        with suppress(UnknownEventTypeError):  # the next claim reports it
            claim.waiting.extend(islice(claim.rest, AHEAD))


def _claimed(row: Webhook, lease: UUID, first: RecordedEvent, rest: Iterator[RecordedEvent]) -> Claim:
    waiting = deque([first])
    return Claim(uid=row.uid, lease=lease, url=row.url, secret=row.secret, types=row.types, waiting=waiting, rest=rest)


def _wait_for_newer_version(row: Webhook, error: UnknownEventTypeError, now: datetime) -> None:
    """Try again later. During an upgrade, an older version must not skip an event that it cannot read."""
    Webhook.objects.filter(uid=row.uid, lease=None, position=row.position).update(
        last_error=f"this version of the program does not know events of type {error}",
        next_attempt_at=now + timedelta(seconds=FIRST_RETRY_SECONDS),
    )
