"""The clock of a control plane's machine may be days off: the database's counts."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from accounts import services
from accounts.roles import Role
from api.models import IdempotencyRecord
from eventstore import database_now
from rollout.tasks import sweep

pytestmark = pytest.mark.django_db


@pytest.fixture(params=[-2, 2])
def wrong_clock(request, monkeypatch):
    """Sets it."""
    return lambda: monkeypatch.setattr(timezone, "now", lambda: datetime.now(UTC) + timedelta(days=request.param))


def test_a_sweep_deletes_no_answer_that_is_kept(wrong_clock, settings, tmp_path):
    default = {**settings.STORAGES["default"], "OPTIONS": {"location": tmp_path}}
    settings.STORAGES = {**settings.STORAGES, "default": default}
    IdempotencyRecord.objects.create(
        user_id=1, route="/", key="k", digest="d", status=202, body="{}", headers={}, created_at=database_now()
    )
    wrong_clock()
    sweep()
    assert IdempotencyRecord.objects.exists()


def test_a_password_is_as_old_as_the_database_says(new_user, wrong_clock):
    wrong_clock()
    user = new_user("dana", Role.ADMIN)
    assert abs(user.password_issued_at - database_now()) < timedelta(minutes=1)
    changed = services.update_user(user.uid, services.UserChanges(password="another correct horse 2"), by=None)
    assert abs(changed.password_issued_at - database_now()) < timedelta(minutes=1)
