"""What is delivered next, and what came of it: at least once, in the order of the log, each webhook by itself.

A webhook is claimed by a conditional update with a lease, so that any number of control workers may run: one that dies
leaves its claims to the others after `LEASE_SECONDS`. The cursor moves after the receiver's answer, so a crash in
between delivers what was acknowledged last again, under the same ids. Nothing here waits for a receiver:
`webhooks.worker` does.
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
from django.db.models import Q, QuerySet

from eventstore import RecordedEvent, UnknownEventTypeError, database_now, head
from webhooks.models import Webhook
from webhooks.selectors import subscription_of
from webhooks.services import disable_failing_webhook

logger = logging.getLogger(__name__)

#: How long a worker may hold a webhook without a sign of life; well above the longest attempt, seconds.
LEASE_SECONDS = 30
#: The wait after a first failure, doubled by each that follows, and the longest, seconds. Up to half of it is left
#: out at random, so that webhooks that failed together do not come back together.
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 300.0
#: A webhook whose attempts have all failed for so long is disabled.
DISABLED_AFTER = timedelta(hours=24)
MAX_ERROR_LENGTH = 500
#: How many events a claim has at hand.
AHEAD = 100


@dataclass(slots=True, kw_only=True)
class Claim:
    """A webhook that is held by a lease, and the events that wait for it. Changes as they are acknowledged."""

    uid: str
    lease: UUID
    url: str = field(repr=False)
    secret: str = field(repr=False)
    types: Sequence[str]
    #: The next events, in order; none when the claim has come to its end.
    waiting: deque[RecordedEvent] = field(repr=False)
    #: The events after those.
    rest: Iterator[RecordedEvent] = field(repr=False)
    #: Position of the newest event that was acknowledged and is not noted yet.
    reached: int | None = None

    def acknowledge(self) -> None:
        """The first event that waits has been delivered."""
        self.reached = self.waiting.popleft().position


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is due now, what is claimed of it, and when to look again even if the log does not grow."""

    #: End of the log as it was looked at.
    position: int
    claims: tuple[Claim, ...]
    #: Whether there is anything to look at.
    is_any_enabled: bool
    #: Until the next attempt; None if none waits for its time.
    seconds_to_next: float | None


def claim_due(*, busy: Collection[str], most: int, least_skip: int = 1) -> Look:
    """Claim up to `most` webhooks for which an event waits, but for those that are `busy` here already.

    The cursors of those for which none waits are moved on, if that is by `least_skip` positions or more.
    """
    position, now = head(), database_now()
    rows = list(Webhook.objects.filter(enabled=True))
    claims: list[Claim] = []
    moments: list[datetime] = []
    unwanted: list[str] = []
    for row in rows:
        if row.uid in busy or len(claims) == most:
            continue
        until = max(filter(None, (row.next_attempt_at, row.leased_until)), default=now)
        if now < until <= _latest(now, longest=max(LEASE_SECONDS, LONGEST_RETRY_SECONDS)):
            moments.append(until)
            continue
        try:
            rest = subscription_of(row).pending()
            first = next(rest, None)
        except UnknownEventTypeError as error:
            _wait_for_a_newer_program(row, error, now)
            continue
        if first is None:
            unwanted += [row.uid] if row.position <= position - least_skip else []
        elif (lease := _claim(row, now)) is not None:
            claims.append(_claimed(row, lease, first, rest))
    if unwanted:
        _move_on(unwanted, position)
    return Look(
        position=position,
        claims=tuple(claims),
        is_any_enabled=bool(rows),
        seconds_to_next=(min(moments) - now).total_seconds() if moments else None,
    )


def _latest(now: datetime, *, longest: float) -> datetime:
    """When a wait of `longest` seconds ends at the latest, even if it began a little after `now`. What ends later began
    before the clock was set back."""
    return now + timedelta(seconds=2 * longest)


@transaction.atomic
def _move_on(uids: Collection[str], position: int) -> None:
    """One write for all, and never backwards: another worker may have delivered something newer meanwhile. What another
    one writes in this moment is left alone, and not waited for."""
    behind = Webhook.objects.filter(uid__in=uids, lease=None, position__lt=position).order_by()
    free = list(behind.select_for_update(skip_locked=True).values_list("uid", flat=True))
    Webhook.objects.filter(uid__in=free).update(position=position)


def _claim(row: Webhook, now: datetime) -> UUID | None:
    """None if another worker was first, even if that one has come to its end since."""
    lease = uuid4()
    as_seen = Webhook.objects.filter(
        Q(leased_until=None) | Q(leased_until__lte=now) | Q(leased_until__gt=_latest(now, longest=LEASE_SECONDS)),
        uid=row.uid,
        enabled=True,
        position=row.position,
        next_attempt_at=row.next_attempt_at,
    )
    return lease if as_seen.update(lease=lease, leased_until=now + timedelta(seconds=LEASE_SECONDS)) else None


def note(claim: Claim, error: str | None) -> None:
    """Move the cursor to what was acknowledged, and see what waits now. `error`: why the event after that was not.

    The lease is given back when nothing waits, or when an attempt has failed: the next one is made after a while.
    """
    now = database_now()
    row = _held(claim).first()
    if row is None:  # deleted, or another worker's since
        claim.waiting.clear()
        return
    changes = _progress(claim, now)
    if error is None:
        _refill(claim, row)
    else:
        claim.waiting.clear()
        changes |= _failure(row, error[:MAX_ERROR_LENGTH], now, is_first=claim.reached is not None)
    changes["lease"] = claim.lease if claim.waiting else None
    changes["leased_until"] = now + timedelta(seconds=LEASE_SECONDS) if claim.waiting else None
    if error is not None and now - changes["failing_since"] >= DISABLED_AFTER:
        _give_up(row, claim, error[:MAX_ERROR_LENGTH])
    _held(claim).update(**changes)
    claim.reached = None


def release(claim: Claim) -> None:
    """Give back what has not come to its end."""
    _held(claim).update(**_progress(claim, database_now()), lease=None, leased_until=None)


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
    wait = min(FIRST_RETRY_SECONDS * 2 ** min(failures, 30), LONGEST_RETRY_SECONDS)
    return {
        "failures": failures + 1,
        "failing_since": now if is_first or row.failing_since is None else row.failing_since,
        "last_error": last_error,
        "next_attempt_at": now + timedelta(seconds=wait * random.uniform(0.5, 1.0)),  # noqa: S311  # no secret
    }


def _give_up(row: Webhook, claim: Claim, last_error: str) -> None:
    hours = DISABLED_AFTER.total_seconds() / 3600
    logger.warning("webhook %s is disabled: %s", row, last_error)
    reason = f"Nothing could be delivered for {hours:.0f} hours. The last attempt: {last_error}"
    disable_failing_webhook(row.uid, lease=claim.lease, last_error=last_error, reason=reason)


def _held(claim: Claim) -> QuerySet[Webhook]:
    return Webhook.objects.filter(uid=claim.uid, lease=claim.lease)


def _refill(claim: Claim, row: Webhook) -> None:
    """What waits for the webhook as it is now; nothing if another look has to tell."""
    if not row.enabled or row.types != claim.types:
        claim.waiting.clear()
        return
    claim.url, claim.secret = row.url, row.secret
    if not claim.waiting:
        with suppress(UnknownEventTypeError):  # the next look says so
            claim.waiting.extend(islice(claim.rest, AHEAD))


def _claimed(row: Webhook, lease: UUID, first: RecordedEvent, rest: Iterator[RecordedEvent]) -> Claim:
    waiting = deque([first])
    return Claim(uid=row.uid, lease=lease, url=row.url, secret=row.secret, types=row.types, waiting=waiting, rest=rest)


def _wait_for_a_newer_program(row: Webhook, error: UnknownEventTypeError, now: datetime) -> None:
    """While programs are replaced one by one: an event must not be left out because an older one cannot read it."""
    Webhook.objects.filter(uid=row.uid, lease=None, position=row.position).update(
        last_error=f"this version of the program does not know events of type {error}",
        next_attempt_at=now + timedelta(seconds=FIRST_RETRY_SECONDS),
    )
