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
from rollout.delivery.signals import relay_caught_up
from rollout.process import timeouts
from rollout.process.manager import Follower
from rollout.reconciliation.reconciler import Reconciler, reconcile
from rollout.tasks import sweep

logger = logging.getLogger(__name__)

#: The longest time between two runs, even if the log does not grow, seconds.
SWEEP_SECONDS = 1.0
AGAIN = f"the relay tries again in {SWEEP_SECONDS} s"
#: How often the head of the log is written to its file, and the storage and the outbox are swept, seconds.
HOURLY_SECONDS = 3600.0
#: The shortest time between two runs, seconds: the log grows with each report, and the control workers act on reports
#: themselves.
PAUSE_SECONDS = 0.1


class Command(BaseCommand):
    help = "Move rollouts on and publish their commands, as soon as the log grows or a time limit ends."

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        next_sweep = time.monotonic() + HOURLY_SECONDS
        _tried(_note_head)
        reconciler, follower = Reconciler(), Follower()
        while not stopping.is_set():
            try:
                close_old_connections()
                position = head()
                is_well, wake_at = run_once(reconciler.look, follower)
                if time.monotonic() > next_sweep:
                    next_sweep = time.monotonic() + HOURLY_SECONDS
                    is_well = _tried(sweep.delay) and is_well
                    _tried(_note_head)
                if is_well:
                    relay_caught_up.send(Command, position=position)
                    stopping.wait(PAUSE_SECONDS)
                    wait_for_growth(position, timeout=_until(wake_at))
                else:
                    stopping.wait(SWEEP_SECONDS)
            except Exception as error:  # noqa: BLE001  # logged; the work is still in the log
                log_failure(logger, AGAIN, error)
                stopping.wait(SWEEP_SECONDS)


def _until(moment: datetime | None) -> float:
    """Return the seconds until `moment`, and at most `SWEEP_SECONDS`."""
    if moment is None:
        return SWEEP_SECONDS
    return min(max((moment - database_now()).total_seconds(), 0.0), SWEEP_SECONDS)


def run_once(
    reconciled: Callable[[], Any] = reconcile, follower: Follower | None = None
) -> tuple[bool, datetime | None]:
    """Do all that is due now. Return True if each step succeeded, and when a rollout is due next.

    A step that fails does not stop the others. Without a `follower`, all rollouts are checked.
    """
    moved = (follower or Follower()).look
    wakes: list[datetime | None] = []
    steps: tuple[Callable[[], Any], ...] = (
        timeouts.end_overdue_operations,
        timeouts.end_operations_of_gone_nodes,
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
    except (OperationalError, RedisError) as error:  # the broker is away: no traceback
        logger.warning("the broker is away, the relay tries again in %s s: %s", SWEEP_SECONDS, error)
        return False
    except Exception as error:  # noqa: BLE001  # logged; the work is still in the log
        log_failure(logger, AGAIN, error)
        return False
    return True
