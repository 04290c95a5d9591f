"""The Celery tasks of the control worker."""

from celery import shared_task

from api.idempotency import sweep_idempotency_records
from artifacts_app.services import sweep_storage
from rollout.delivery.outbox import forget_finished
from rollout.delivery.scratch_successes import forget_useless_successes
from rollout.delivery.server_logs import forget_server_logs
from rollout.process.wakes import forget_ended_rollouts


@shared_task(name="modfleet.sweep")
def sweep() -> None:
    """Delete what is no longer needed: packages, outbox rows, wakes of rollouts, successes of scratch servers, idempotency
    records and lines of servers' logs. May run any number of times."""
    sweep_storage()
    forget_finished()
    sweep_idempotency_records()
    forget_server_logs()
    forget_ended_rollouts()
    forget_useless_successes()
