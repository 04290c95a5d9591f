"""Two changes at the same moment: both databases keep what must hold for all accounts."""

import pytest

from accounts import services
from accounts.errors import LastAdminError, NameTakenError
from accounts.models import User
from accounts.roles import Role
from accounts.services import UserChanges
from eventstore import verify
from tests.plugins.databases import at_once


@pytest.fixture(autouse=True)
def fast_passwords(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def make(name: str, role: Role) -> User:
    return services.create_user(name=name, email="", password="correct horse 1", role=role, by=None)


def refused(action, error: type[Exception]) -> bool:
    try:
        action()
    except error:
        return True
    return False


def test_two_admins_who_leave(committed_db):
    admins = [make("alice", Role.ADMIN), make("olga", Role.ADMIN)]
    outcomes = at_once(
        lambda: refused(lambda: services.delete_user(admins[0].uid, by=None), LastAdminError),
        lambda: refused(
            lambda: services.update_user(admins[1].uid, UserChanges(role=Role.NONE), by=None), LastAdminError
        ),
    )
    assert sorted(outcomes) == [False, True]
    assert User.objects.filter(role=Role.ADMIN).count() == 1


def test_one_name_for_two(committed_db):
    make("alice", Role.ADMIN)
    outcomes = at_once(*[lambda: refused(lambda: make("bob", Role.DB_VIEWER), NameTakenError)] * 2)
    assert sorted(outcomes) == [False, True]


def test_new_accounts_get_uids_of_their_own(committed_db):
    users = at_once(*[lambda name=f"user{number}": make(name, Role.DB_VIEWER) for number in range(4)])
    assert sorted(each.uid for each in users) == [1, 2, 3, 4]
    assert verify() == 4


def test_two_first_starts(committed_db):
    assert sorted(at_once(*[lambda: services.bootstrap_admin("correct horse 1")] * 2)) == ["", "admin"]
    assert User.objects.count() == 1
