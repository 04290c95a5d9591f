import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import close_old_connections
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from api.failures import log_failure
from eventstore import database_now, head, note_head, wait_for_growth
from rollout.delivery.broker_users import BrokerUsers
from rollout.delivery.outbox import publish_due
from rollout.delivery.rekeys import Rekeys
from rollout.delivery.signals import relay_caught_up
from rollout.process import clock, timeouts
from rollout.process.manager import ProcessManager
from rollout.reconciliation.reconciler import Reconciler, reconcile
from rollout.tasks import sweep
from rollout.tls import in_words

logger = logging.getLogger(__name__)

#: Longest time between two runs of all steps, seconds.
SWEEP_SECONDS = 1.0
AGAIN = f"the relay retries in {SWEEP_SECONDS} s"
#: Time between two saves of the log's head, and between two sweeps of storage and outbox, seconds.
HOURLY_SECONDS = 3600.0
#: Least time between two runs, seconds. The log grows with each report, but the control worker that ingests a report
#: acts on it.
PAUSE_SECONDS = 0.1


class Command(BaseCommand):
    help = (
        "Run the outbox relay until SIGTERM: publish commands, advance rollouts, end overdue operations, and reconcile nodes. "
        f"It acts when the log grows, and at least every {SWEEP_SECONDS:g} s."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        next_sweep = time.monotonic() + HOURLY_SECONDS
        _tried(_note_head)
        reconciler, manager = Reconciler(), ProcessManager()
        broker_users, rekeys = BrokerUsers(), Rekeys()
        while not stopping.is_set():
            try:
                close_old_connections()
                position = head()
                is_well, wake_at = run_once(reconciler.poll, manager, (broker_users.poll, rekeys.publish))
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
            except Exception as error:  # noqa: BLE001  # logged; the log still has all that must be done
                log_failure(logger, AGAIN, error)
                stopping.wait(SWEEP_SECONDS)


def _until(moment: datetime | None) -> float:
    """Return the seconds until that moment, at most `SWEEP_SECONDS`."""
    if moment is None:
        return SWEEP_SECONDS
    return min(max((moment - database_now()).total_seconds(), 0.0), SWEEP_SECONDS)


def run_once(
    reconciled: Callable[[], Any] = reconcile,
    manager: ProcessManager | None = None,
    first: Sequence[Callable[[], Any]] = (),
) -> tuple[bool, datetime | None]:
    """Run all steps. Return True if all succeeded, and the time of the next step of a rollout.

    A step that fails does not stop the others. `first` are steps before the others. Without a `manager`, all rollouts are advanced.
    """
    moved = (manager or ProcessManager()).poll
    wakes: list[datetime | None] = []
    steps: tuple[Callable[[], Any], ...] = (
        *first,
        clock.follow,
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
    except OSError as error:  # the JSON log also has the head
        logger.warning("the head of the log cannot be written to %s: %s", path, error)


def _tried(step: Callable[[], Any]) -> bool:
    try:
        step()
    except (OperationalError, RedisError) as error:  # the broker may be down at times: no traceback
        logger.warning(
            "the broker cannot be reached, the relay retries in %s s: %s",
            SWEEP_SECONDS,
            in_words(error, "MODFLEET_BROKER_CA"),
        )
        return False
    except Exception as error:  # noqa: BLE001  # logged; the log still has what must be done
        log_failure(logger, AGAIN, error)
        return False
    return True
