"""A name belongs to one account for ever: the log means that account by it."""

import importlib
import json

import pytest
from django.apps import apps
from django.core.management import call_command

from accounts import services
from accounts.events import UserCreated, UserUpdated, user_stream
from accounts.models import AccountName, User
from accounts.roles import Role
from accounts.selectors import user_called
from accounts.services import UserChanges
from eventstore import load, projections
from eventstore.registry import decode
from tests.plugins.cast import PASSWORD, client_of


def rename(user, name):
    return services.update_user(user.uid, UserChanges(name=name), by=None)


def created(caller, **body):
    body = {"email": "new@example.com", "password": PASSWORD, "role": "none", **body}
    response = client_of(caller).post("/v1/users", body, format="json")
    return response.status_code, response.json().get("error_code")


@pytest.mark.parametrize("name", ["bob", "BOB"])
@pytest.mark.parametrize("leaves", ["renamed", "deleted"])
def test_another_account_never_gets_it(alice, bob, carol, leaves, name):
    if leaves == "renamed":
        rename(bob, "robert")
    else:
        services.delete_user(bob.uid, by=None)
    assert created(alice, name=name) == (409, "name_used_before")
    response = client_of(alice).put(f"/v1/users/{carol.uid}", {"name": name}, format="json")
    assert (response.status_code, response.json()["error_code"]) == (409, "name_used_before")
    assert len(load(user_stream(carol.uid))) == 1
    assert user_called("bob") == bob.uid


@pytest.mark.parametrize("name", ["bob", "Bob", "BOB@example.com", "\uff42ob"])
def test_nor_one_that_looks_like_it(alice, bob, name):
    status, code = created(alice, name=name)
    assert (status, code) in {(409, "name_already_exists"), (400, "invalid_request")}


def test_an_account_takes_its_own_name_back(bob):
    for name in ("robert", "bob", "Bob"):
        assert rename(bob, name).username == name
    assert set(AccountName.objects.values_list("name", "uid")) == {
        ("bob", bob.uid),
        ("robert", bob.uid),
        ("Bob", bob.uid),
    }


def test_an_email_address_that_was_a_name_gets_a_new_account_under_another_name(alice):
    assert created(alice) == (200, None)
    services.delete_user(User.objects.get(email="new@example.com").uid, by=None)
    assert created(alice) == (409, "name_used_before")
    assert created(alice, name="dave") == (200, None)


def test_the_log_tells_of_a_renaming(alice, bob):
    rename(bob, "robert")
    services.update_user(bob.uid, UserChanges(role=Role.NONE), by=None)
    made, renamed, changed = (each.event for each in load(user_stream(bob.uid)))
    assert made == UserCreated(uid=bob.uid, role=Role.CLUSTER_VIEWER, name="bob")
    assert renamed == UserUpdated(
        uid=bob.uid, role=Role.CLUSTER_VIEWER, changed=("name",), name="robert", former_name="bob"
    )
    assert changed == UserUpdated(uid=bob.uid, role=Role.NONE, changed=("role",))


def test_events_of_before_they_had_names():
    assert decode("account.created.v1", '{"uid":1,"role":"admin"}') == UserCreated(uid=1, role=Role.ADMIN)
    former = decode("account.updated.v1", '{"uid":1,"role":"admin","changed":["name"]}')
    assert former == UserUpdated(uid=1, role=Role.ADMIN, changed=("name",))


def test_a_restored_log_brings_the_names_back(alice, bob):
    rename(bob, "robert")
    names = set(AccountName.objects.values_list("name", "uid"))
    AccountName.objects.all().delete()
    for each in projections.registered():
        projections.rebuild(each)
    assert set(AccountName.objects.values_list("name", "uid")) == names


def test_the_upgrade_notes_the_present_names(alice, bob):
    AccountName.objects.all().delete()
    importlib.import_module("accounts.migrations.0002_account_names").fill(apps, None)
    assert set(AccountName.objects.values_list("name", "uid")) == {("alice", alice.uid), ("bob", bob.uid)}
    for each in projections.registered():
        projections.rebuild(each)
    assert AccountName.objects.count() == 2


@pytest.mark.parametrize(
    ("actor", "request_id", "is_kept"),
    [
        ("user:dave", "", True),
        ("dave", "r1", True),
        ("dave", "", False),  # it may be a node
        ("node:dave", "", False),
        ("system:dave", "r1", False),
    ],
)
def test_the_upgrade_keeps_names_that_were_given_up(alice, monkeypatch, actor, request_id, is_kept):
    """Else a new account would be taken for the one that has acted."""
    AccountName.objects.all().delete()
    migration = importlib.import_module("accounts.migrations.0002_account_names")
    text = json.dumps({"actor": actor, "request_id": request_id})
    monkeypatch.setattr(migration, "texts", lambda _: [text])
    migration.fill(apps, None)
    assert (created(alice, name="dave") == (409, "name_used_before")) is is_kept
    assert user_called("dave") is None or not is_kept


@pytest.mark.slow
def test_the_first_admin_where_its_name_is_used_up(db, monkeypatch, capsys):
    monkeypatch.setenv("MODFLEET_ADMIN_PASSWORD", PASSWORD)
    assert services.ensure_admin(PASSWORD) == "admin"
    rename(User.objects.get(), "alice")
    assert [services.ensure_admin(PASSWORD) for _ in range(2)] == ["admin-2"] * 2
    User.objects.all().delete()  # a log that was restored without the accounts
    call_command("bootstrap")
    assert capsys.readouterr().out == "user admin-3, password from MODFLEET_ADMIN_PASSWORD\n"
