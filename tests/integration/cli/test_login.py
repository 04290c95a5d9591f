"""`modfleet login`, what it keeps, and whose word counts."""

import base64
import json
import tomllib
from pathlib import Path

import pytest

from modfleet.access_token import lifetime
from tests.plugins.cast import PASSWORD

pytestmark = pytest.mark.slow
NOBODY = {"MODFLEET_USER": "", "MODFLEET_PASSWORD": "", "MODFLEET_URL": ""}


def profile(environ):
    return Path(environ["MODFLEET_CONFIG"])


def test_the_token_is_kept_for_the_owner_alone_and_the_password_is_not(run, environ):
    shown = run("login", "--json")
    assert json.loads(shown.stdout).keys() == {"url", "user", "expires_at", "config"}
    kept = profile(environ)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert tomllib.loads(kept.read_text()).keys() == {"url", "user", "token"}
    assert PASSWORD not in kept.read_text()


def test_afterwards_nothing_need_be_said(run, environ):
    run("login")
    assert run("nodes", **NOBODY).exit_code == 0
    assert run("logout", **NOBODY).exit_code == 0
    assert "token" not in tomllib.loads(profile(environ).read_text())
    shown = run("nodes", **NOBODY)
    assert (shown.exit_code, "run `modfleet login`" in shown.stderr) == (2, True)


def test_the_token_goes_to_no_other_url(run, control):
    run("login")
    shown = run("nodes", **{**NOBODY, "MODFLEET_URL": control.url.replace("127.0.0.1", "localhost")})
    assert (shown.exit_code, "No credentials" in shown.stderr) == (2, True)


def test_the_password_comes_from_the_standard_input(run):
    shown = run("login", "--password-file", "-", stdin=f"{PASSWORD}\n", MODFLEET_PASSWORD="")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("signed in to ")


def test_the_password_is_asked_for_without_an_echo(terminal):
    asking = terminal("login", MODFLEET_PASSWORD="")
    asking.wait_until(lambda text: "Password of alice:" in text)
    asking.type(f"{PASSWORD}\n")
    assert asking.end() == 0
    assert "signed in" in asking.text
    assert PASSWORD.encode() not in asking.seen


def test_ctrl_c_at_the_question(terminal):
    asking = terminal("login", MODFLEET_PASSWORD="")
    asking.wait_until(lambda text: "Password of alice:" in text)
    asking.type("\x03")
    assert asking.end() == 130
    assert "Traceback" not in asking.text


def test_a_wrong_password(run, environ):
    shown = run("login", MODFLEET_PASSWORD="wrong")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr.startswith("The user or the password is wrong. ")
    assert not profile(environ).exists()


def test_a_token_from_the_environment_or_a_file(run, environ, tmp_path):
    run("login")
    token = tomllib.loads(profile(environ).read_text())["token"]
    (tmp_path / "token").write_text(f"{token}\n")
    plain = {**NOBODY, "MODFLEET_URL": environ["MODFLEET_URL"], "MODFLEET_CONFIG": str(tmp_path / "none")}
    assert run("nodes", **plain, MODFLEET_TOKEN=token).exit_code == 0
    assert run("nodes", "--token-file", str(tmp_path / "token"), **plain).exit_code == 0
    assert run("nodes", **plain, MODFLEET_TOKEN="nonsense").exit_code == 2


def test_a_token_is_renewed_and_kept_when_half_of_its_time_is_over(run, environ, monkeypatch):
    run("login")
    former = tomllib.loads(profile(environ).read_text())["token"]
    issued, expires = lifetime(former)
    monkeypatch.setattr("modfleet.access_token.time.time", lambda: (issued + expires) / 2 + 1)
    assert run("nodes", **NOBODY).exit_code == 0
    # The control plane's clock is another one: what is new is the lifetime that was asked for again.
    kept = tomllib.loads(profile(environ).read_text())["token"]
    assert lifetime(kept)[1] - lifetime(kept)[0] == expires - issued
    assert base64.urlsafe_b64decode(kept.split(".")[0] + "==") == base64.urlsafe_b64decode(former.split(".")[0] + "==")


def test_names_are_completed(run, environ, monkeypatch):
    from modfleet.commands.completion import node_names

    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert node_names("n") == ["n1", "n2", "n3"]
    monkeypatch.setenv("MODFLEET_URL", "http://127.0.0.1:1")
    assert node_names("n") == []
