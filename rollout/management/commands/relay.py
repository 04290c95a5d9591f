import logging
import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand
from django.db import close_old_connections

from eventstore.follow import wait_for_growth
from eventstore.store import head
from rollout import selectors, services
from rollout.dispatch import publish_due
from rollout.tasks import sweep

logger = logging.getLogger(__name__)

#: How often everything is looked at even if nothing happened, seconds.
SWEEP_SECONDS = 1.0
#: Least time between two looks, seconds: the log grows with each report, and what reports bring about is done by the
#: control workers, which take them in.
PAUSE_SECONDS = 0.1
#: How often storage is swept, in looks.
STORAGE_SWEEP_EVERY = 3600


class Command(BaseCommand):
    help = "Move rollouts on and publish their commands: at once when the log grows, and by the clock."

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        looks = 0
        position = 0
        while not stopping.is_set():
            try:
                close_old_connections()
                position = head()
                services.end_overdue_operations()
                services.advance_all(selectors.unfinished_rollouts())
                publish_due()
                if looks % STORAGE_SWEEP_EVERY == STORAGE_SWEEP_EVERY - 1:
                    sweep.delay()
                looks += 1
                stopping.wait(PAUSE_SECONDS)
                wait_for_growth(position, timeout=SWEEP_SECONDS)
            except Exception:  # the database or the broker is away: all that was to be done still stands in the log
                logger.exception("the relay tries again")
                stopping.wait(SWEEP_SECONDS)
