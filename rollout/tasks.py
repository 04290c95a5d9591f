"""Celery entry points of the control worker."""

from celery import shared_task

from api.idempotency import sweep_idempotency_records
from artifacts_app.services import sweep_storage
from rollout.delivery.outbox import forget_ended


@shared_task(name="modfleet.sweep")
def sweep() -> None:
    """Remove what nothing names any more. May run any number of times."""
    sweep_storage()
    forget_ended()
    sweep_idempotency_records()
