import logging
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import close_old_connections
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from api.failures import log_failure
from eventstore import database_now, head, note_head, wait_for_growth
from rollout.delivery.outbox import publish_due
from rollout.delivery.signals import relay_looked
from rollout.process import timeouts
from rollout.process.manager import ProcessManager
from rollout.reconciliation.reconciler import Reconciler, reconcile
from rollout.tasks import sweep

logger = logging.getLogger(__name__)

#: How often everything is looked at even if nothing happened, seconds.
SWEEP_SECONDS = 1.0
AGAIN = f"the relay tries again in {SWEEP_SECONDS} s"
#: How often the head of the log is noted, and storage and outbox are swept, seconds.
HOURLY_SECONDS = 3600.0
#: Least time between two looks, seconds: the log grows with each report, and what reports bring about is done by the
#: control workers, which take them in.
PAUSE_SECONDS = 0.1


class Command(BaseCommand):
    help = "Move rollouts on and publish their commands: at once when the log grows, and by the clock."

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        next_sweep = time.monotonic() + HOURLY_SECONDS
        _tried(_note_head)
        reconciler, manager = Reconciler(), ProcessManager()
        while not stopping.is_set():
            try:
                close_old_connections()
                position = head()
                is_well, wake_at = look(reconciler.poll, manager)
                if time.monotonic() > next_sweep:
                    next_sweep = time.monotonic() + HOURLY_SECONDS
                    is_well = _tried(sweep.delay) and is_well
                    _tried(_note_head)
                if is_well:
                    relay_looked.send(Command, position=position)
                    stopping.wait(PAUSE_SECONDS)
                    wait_for_growth(position, timeout=_until(wake_at))
                else:
                    stopping.wait(SWEEP_SECONDS)
            except Exception as error:  # noqa: BLE001  # logged; all that was to be done still stands in the log
                log_failure(logger, AGAIN, error)
                stopping.wait(SWEEP_SECONDS)


def _until(moment: datetime | None) -> float:
    """Seconds until that moment, but no longer than to the next sweep."""
    if moment is None:
        return SWEEP_SECONDS
    return min(max((moment - database_now()).total_seconds(), 0.0), SWEEP_SECONDS)


def look(
    reconciled: Callable[[], Any] = reconcile, manager: ProcessManager | None = None
) -> tuple[bool, datetime | None]:
    """Do all that is due now. Whether each step succeeded, and when a rollout wants to be looked at next.

    A step that fails keeps no other from its work. Without a `manager` all rollouts are looked at.
    """
    moved = (manager or ProcessManager()).poll
    wakes: list[datetime | None] = []
    steps: tuple[Callable[[], Any], ...] = (
        timeouts.end_overdue_operations,
        timeouts.end_operations_of_decommissioned_nodes,
        reconciled,
        lambda: wakes.append(moved()),
        publish_due,
    )
    outcomes = [_tried(step) for step in steps]
    return all(outcomes), wakes[0] if wakes else None


def _note_head() -> None:
    path = settings.ENVIRONMENT.log_heads_path
    try:
        note_head(path)
    except OSError as error:  # the JSON log has it
        logger.warning("the head of the log cannot be written to %s: %s", path, error)


def _tried(step: Callable[[], Any]) -> bool:
    try:
        step()
    except (OperationalError, RedisError) as error:  # the broker is away, which is foreseen: no traceback
        logger.warning("the broker is away, the relay tries again in %s s: %s", SWEEP_SECONDS, error)
        return False
    except Exception as error:  # noqa: BLE001  # logged; what was to be done still stands in the log
        log_failure(logger, AGAIN, error)
        return False
    return True
