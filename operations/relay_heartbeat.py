"""The relay's heartbeat, in the database: every API process can say how far the relay is behind."""

import time
from typing import Any

from eventstore import database_now
from operations.models import Heartbeat

RELAY = "relay"
#: The name of a row that is written only to check that the database is writable.
PROBE = "probe"
#: The shortest time between two heartbeats, seconds: in a large rollout the relay runs ten times a second.
INTERVAL_SECONDS = 2.0

_next_heartbeat = 0.0


def record_relay_heartbeat(*, position: int, **_: Any) -> None:
    """Receive `relay_caught_up`, in the only thread of a relay."""
    global _next_heartbeat  # noqa: PLW0603  # one per process
    if time.monotonic() < _next_heartbeat:
        return
    Heartbeat.objects.update_or_create(name=RELAY, defaults={"looked_at": database_now(), "position": position})
    _next_heartbeat = time.monotonic() + INTERVAL_SECONDS


def probe_write() -> None:
    """Commit the smallest possible write. Raises: `django.db.Error`."""
    Heartbeat.objects.update_or_create(name=PROBE, defaults={"looked_at": database_now(), "position": 0})


def relay_heartbeat() -> Heartbeat | None:
    """Return the newest heartbeat of a relay. None if no relay has ever run."""
    return Heartbeat.objects.filter(name=RELAY).first()
