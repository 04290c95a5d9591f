"""manage.py bootstrap"""

import pytest
from django.core.management import CommandError, call_command

from accounts.errors import WeakPasswordError
from accounts.models import User
from accounts.roles import Role
from accounts.services import bootstrap_admin, ensure_admin

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


def test_it_works(monkeypatch, capsys):
    monkeypatch.setenv("MODFLEET_ADMIN_PASSWORD", "correct horse 1")
    call_command("bootstrap")
    admin = User.objects.get()
    assert (admin.username, admin.role, admin.uid) == ("admin", Role.ADMIN, 1)
    assert admin.check_password("correct horse 1")
    assert capsys.readouterr().out == "user admin, password from MODFLEET_ADMIN_PASSWORD\n"


def test_a_password_is_made_and_printed_once(monkeypatch, capsys):
    monkeypatch.delenv("MODFLEET_ADMIN_PASSWORD", raising=False)
    call_command("bootstrap")
    password = capsys.readouterr().out.split()[-1]
    assert User.objects.get().check_password(password)
    call_command("bootstrap")
    assert capsys.readouterr().out == "users exist, nothing to do\n"


def test_again_changes_nothing():
    assert bootstrap_admin("correct horse 1")
    assert not bootstrap_admin("another horse 2")
    assert User.objects.get().check_password("correct horse 1")


def test_it_does_not_give_a_deleted_admin_back(alice):
    assert not bootstrap_admin("correct horse 1")


def test_a_weak_password():
    with pytest.raises(WeakPasswordError):
        bootstrap_admin("short")


def test_the_admin_of_an_embedded_cluster(alice):
    for password in ("correct horse 1", "correct horse 1", "another horse 2"):
        ensure_admin(password)
        assert User.objects.get(username="admin").check_password(password)
    assert User.objects.get(username="admin").credential_version == 2


def test_the_password_comes_from_a_file(tmp_path, capsys):
    path = tmp_path / "password"
    path.write_text("correct horse 1\n")
    call_command("bootstrap", password_file=str(path))
    assert User.objects.get().check_password("correct horse 1")
    assert capsys.readouterr().out == f"user admin, password from {path}\n"


@pytest.mark.parametrize("content", [None, "", "short\n"])
def test_a_password_file_that_cannot_be_used_makes_no_account(tmp_path, content):
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CommandError, match="password"):
        call_command("bootstrap", password_file=str(path))
    assert not User.objects.exists()
