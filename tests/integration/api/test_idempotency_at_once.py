"""The same POST twice at the same moment: one is done, both get its answer."""

import pytest
from rest_framework.test import APIClient

from accounts import services
from accounts.models import User
from accounts.roles import Role
from tests.plugins.cast import PASSWORD, basic
from tests.plugins.databases import at_once

DAVE = {"email": "dave@example.com", "password": "correct horse 2", "name": "dave", "role": "db_viewer"}


@pytest.fixture(autouse=True)
def fast_passwords(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def test_it_works(committed_db):
    services.create_user(name="alice", email="", password=PASSWORD, role=Role.ADMIN, by=None)

    def post():
        headers = {"Idempotency-Key": "k1", "authorization": basic("alice")}
        return APIClient().post("/v1/users", DAVE, format="json", headers=headers)

    responses = at_once(*[post] * 4)
    assert [each.status_code for each in responses] == [200] * 4
    assert len({each.content for each in responses}) == 1
    assert sorted("Idempotency-Replayed" in each for each in responses) == [False, True, True, True]
    assert User.objects.count() == 2
