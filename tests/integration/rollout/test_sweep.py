"""What the control worker clears away every hour."""

from datetime import timedelta

import pytest

from api.idempotency import KEPT
from api.models import IdempotencyRecord
from eventstore import database_now
from rollout.models import Dispatch
from rollout.tasks import sweep

pytestmark = pytest.mark.django_db


def answer(key, created_at):
    return IdempotencyRecord.objects.create(
        user_id=1, route="/v2/rollouts", key=key, digest="d", status=202, body="{}", headers={}, created_at=created_at
    )


def test_answers_that_are_no_longer_kept_go(settings, tmp_path):
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {**settings.STORAGES["default"], "OPTIONS": {"location": tmp_path}},
    }
    answer("old", database_now() - KEPT - timedelta(seconds=1))
    answer("new", database_now())
    sweep()
    assert [each.key for each in IdempotencyRecord.objects.all()] == ["new"]


def test_the_outbox_forgets_what_nothing_waits_for():
    Dispatch.objects.create(operation="gone:node-1")
    sweep()
    assert not Dispatch.objects.exists()
