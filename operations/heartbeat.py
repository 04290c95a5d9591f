"""That a relay is at work stands in the database, so that every API process can say how far behind it is."""

import time
from typing import Any

from eventstore import database_now
from operations.models import Heartbeat

RELAY = "relay"
#: Of nobody: a row that is written to see whether the database can be.
PROBE = "probe"
#: Least time between two notes, seconds: a relay looks ten times a second in a large rollout.
NOTE_SECONDS = 2.0

_next_note = 0.0


def note_look(*, position: int, **_: Any) -> None:
    """Receiver of `relay_looked`. Called in the one thread of a relay."""
    global _next_note  # noqa: PLW0603  # of this process, as its name says
    if time.monotonic() < _next_note:
        return
    Heartbeat.objects.update_or_create(name=RELAY, defaults={"looked_at": database_now(), "position": position})
    _next_note = time.monotonic() + NOTE_SECONDS


def probe_write() -> None:
    """A write as small as one can be, committed. Raises: `django.db.Error`."""
    Heartbeat.objects.update_or_create(name=PROBE, defaults={"looked_at": database_now(), "position": 0})


def relay_heartbeat() -> Heartbeat | None:
    """None while no relay has ever been at work."""
    return Heartbeat.objects.filter(name=RELAY).first()
