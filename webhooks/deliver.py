"""What is delivered next, and what came of it: at least once, in the order of the log, each webhook by itself.

A webhook is claimed by a conditional update with a lease, so that any number of control workers may run: one that dies
leaves its claims to the others after `LEASE_SECONDS`. The cursor moves after the receiver's answer, so a crash in
between delivers the event again, under the same id. Nothing here waits for a receiver: `webhooks.worker` does.
"""

import logging
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.db.models import Q, QuerySet

from eventstore.recorded import RecordedEvent
from eventstore.registry import UnknownEventTypeError
from eventstore.store import database_now, head
from webhooks.models import Webhook
from webhooks.selectors import wanted_events
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An event to be sent to a webhook that is claimed; `rest` are the events that come after it."""

    uid: str
    lease: UUID
    url: str = field(repr=False)
    secret: str = field(repr=False)
    types: Sequence[str]
    recorded: RecordedEvent
    rest: Iterator[RecordedEvent] = field(repr=False)

    @property
    def message_id(self) -> str:
        """The same for every attempt to deliver the event."""
        return f"msg_{self.recorded.event_id.hex}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is due now, what is claimed of it, and when to look again even if the log does not grow."""

    #: End of the log as it was looked at.
    position: int
    deliveries: tuple[Delivery, ...]
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
    deliveries: list[Delivery] = []
    moments: list[datetime] = []
    unwanted: list[str] = []
    for row in rows:
        if row.uid in busy or len(deliveries) == most:
            continue
        until = max(filter(None, (row.next_attempt_at, row.leased_until)), default=now)
        if until > now:
            moments.append(until)
            continue
        try:
            rest = wanted_events(row)
            recorded = next(rest, None)
        except UnknownEventTypeError as error:
            _wait_for_a_newer_program(row, error, now)
            continue
        if recorded is None:
            unwanted += [row.uid] if row.position <= position - least_skip else []
        elif (lease := _claim(row, now)) is not None:
            deliveries.append(_delivery(row, lease, recorded, rest))
    # One write for all, and never backwards: another worker may have delivered something newer meanwhile.
    if unwanted:
        Webhook.objects.filter(uid__in=unwanted, lease=None, position__lt=position).update(position=position)
    return Look(
        position=position,
        deliveries=tuple(deliveries),
        is_any_enabled=bool(rows),
        seconds_to_next=(min(moments) - now).total_seconds() if moments else None,
    )


def _claim(row: Webhook, now: datetime) -> UUID | None:
    """None if another worker was first, even if that one has come to its end since."""
    lease = uuid4()
    as_seen = Webhook.objects.filter(
        Q(leased_until=None) | Q(leased_until__lte=now),
        uid=row.uid,
        enabled=True,
        position=row.position,
        next_attempt_at=row.next_attempt_at,
    )
    return lease if as_seen.update(lease=lease, leased_until=now + timedelta(seconds=LEASE_SECONDS)) else None


def delivered(delivery: Delivery) -> Delivery | None:
    """Move the cursor, and go on: what to deliver next under the same lease, which is given back if there is nothing."""
    now = database_now()
    row = _held(delivery).first()
    if row is None:  # deleted, or another worker's since
        return None
    recorded = _following(row, delivery)
    _held(delivery).update(
        position=delivery.recorded.position,
        failures=0,
        failing_since=None,
        last_error="",
        last_delivered_at=now,
        next_attempt_at=None,
        lease=delivery.lease if recorded else None,
        leased_until=now + timedelta(seconds=LEASE_SECONDS) if recorded else None,
    )
    return _delivery(row, delivery.lease, recorded, delivery.rest) if recorded else None


def failed(delivery: Delivery, error: str) -> None:
    """Have the event delivered again after a while, or disable the webhook if it has failed for too long."""
    now, last_error = database_now(), error[:MAX_ERROR_LENGTH]
    row = _held(delivery).first()
    if row is None:
        return
    since = row.failing_since or now
    if now - since >= DISABLED_AFTER:
        hours = DISABLED_AFTER.total_seconds() / 3600
        reason = f"Nothing could be delivered for {hours:.0f} hours. The last attempt: {last_error}"
        logger.warning("webhook %s is disabled: %s", row, last_error)
        disable_failing_webhook(row.uid, lease=delivery.lease, last_error=last_error, reason=reason)
    wait = min(FIRST_RETRY_SECONDS * 2 ** min(row.failures, 30), LONGEST_RETRY_SECONDS)
    _held(delivery).update(
        failures=row.failures + 1,
        failing_since=since,
        last_error=last_error,
        next_attempt_at=now + timedelta(seconds=wait * random.uniform(0.5, 1.0)),  # noqa: S311  # no secret
        lease=None,
        leased_until=None,
    )


def release(leases: Collection[UUID]) -> None:
    """Give back what was claimed and not brought to an end."""
    Webhook.objects.filter(lease__in=leases).update(lease=None, leased_until=None)


def _held(delivery: Delivery) -> QuerySet[Webhook]:
    return Webhook.objects.filter(uid=delivery.uid, lease=delivery.lease)


def _following(row: Webhook, delivery: Delivery) -> RecordedEvent | None:
    """The next event for the webhook as it is now; None also if `rest` does not tell."""
    if not row.enabled or row.types != delivery.types:
        return None
    try:
        return next(delivery.rest, None)
    except UnknownEventTypeError:
        return None  # the next look tells


def _delivery(row: Webhook, lease: UUID, recorded: RecordedEvent, rest: Iterator[RecordedEvent]) -> Delivery:
    return Delivery(
        uid=row.uid, lease=lease, url=row.url, secret=row.secret, types=row.types, recorded=recorded, rest=rest
    )


def _wait_for_a_newer_program(row: Webhook, error: UnknownEventTypeError, now: datetime) -> None:
    """While programs are replaced one by one: an event must not be left out because an older one cannot read it."""
    Webhook.objects.filter(uid=row.uid, lease=None, position=row.position).update(
        last_error=f"this version of the program does not know events of type {error}",
        next_attempt_at=now + timedelta(seconds=FIRST_RETRY_SECONDS),
    )
