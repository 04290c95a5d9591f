"""Leases on rows, and waits that grow: how the relay and the delivery of webhooks share their work among processes.

A process claims rows by a conditional update: a lease, with the moment at which it ends. Another process may claim the
rows once they are released, or when the lease has ended. So any number of processes may run, and one of them may die.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q

#: How long a process may keep what it has claimed before another one may claim it, seconds. It must be longer than one
#: attempt to deliver a webhook, 10 s, and one batch of commands.
LEASE_SECONDS = 30
#: New values of a row that is released.
RELEASED: dict[str, Any] = {"lease": None, "leased_until": None}


def leased(lease: UUID, now: datetime) -> dict[str, Any]:
    """Return the new values of a row that is claimed."""
    return {"lease": lease, "leased_until": now + timedelta(seconds=LEASE_SECONDS)}


def may_be_claimed(now: datetime) -> Q:
    return Q(leased_until=None) | has_passed("leased_until", now, longest=LEASE_SECONDS)


def has_passed(column: str, now: datetime, *, longest: float) -> Q:
    """Match rows whose wait of `longest` seconds at most is over.

    A wait that ends after `latest_end` began before the clock was set back.
    """
    return Q(**{f"{column}__lte": now}) | Q(**{f"{column}__gt": latest_end(now, longest=longest)})


def latest_end(now: datetime, *, longest: float) -> datetime:
    """Return when a wait of `longest` seconds at most can end, even if it began a little after `now`."""
    return now + timedelta(seconds=2 * longest)


def backoff(failures: int, *, first: float, longest: float) -> float:
    """Return the seconds to wait: `first`, doubled by each failure, and at most `longest`."""
    return min(first * 2.0 ** min(failures, 30), longest)
