"""`manage.py check --deploy` in production."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config.checks import warnings_about
from config.environment import Environment

ROOT = Path(__file__).parents[3]
#: What production needs, as docs/howto/production.md says.
PRODUCTION = {
    "MODFLEET_HTTPS": "1",
    "MODFLEET_ALLOWED_HOSTS": "modfleet.example.com",
    "MODFLEET_PUBLIC_URL": "https://modfleet.example.com",
    "MODFLEET_DATABASE_URL": "postgresql://modfleet:secret@db.example.com/modfleet?sslmode=verify-full",
}


def check_deploy(tmp_path, **changes):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MODFLEET_")}
    environ |= PRODUCTION | {"MODFLEET_DATA_DIR": str(tmp_path)} | changes
    words = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    return subprocess.run(words, env=environ, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_it_is_clean(tmp_path):
    done = check_deploy(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "System check identified no issues (0 silenced).\n"


@pytest.mark.slow
def test_what_production_needs_is_warned_of(tmp_path):
    done = check_deploy(tmp_path, MODFLEET_HTTPS="0", MODFLEET_DEBUG="1", MODFLEET_SECRET_KEY="short")
    assert done.returncode == 1
    for warning in ("W004", "W008", "W009", "W012", "W016", "W018"):
        assert f"security.{warning}" in done.stderr


@pytest.mark.parametrize(
    ("changes", "warnings"),
    [
        ({}, []),
        ({"allowed_hosts": "*"}, ["modfleet.W001"]),
        ({"public_url": "http://modfleet.example.com"}, ["modfleet.W002"]),
        ({"database_url": ""}, ["modfleet.W003"]),
    ],
)
def test_our_own_warnings(changes, warnings):
    given: dict[str, Any] = {name.removeprefix("MODFLEET_").lower(): value for name, value in PRODUCTION.items()}
    given["https"] = True
    assert [each.id for each in warnings_about(Environment(**{**given, **changes}))] == warnings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_URL", "foo"),
        ("BROKER_URL", "http://x"),
        ("DATABASE_URL", "mysql://u:p@h/d"),
        ("STORAGE_OPTIONS", "{"),
        ("DATA_DIR", "/dev/null/data"),
    ],
)
def test_a_setting_that_is_wrong_is_one_sentence(tmp_path, name, value):
    done = check_deploy(tmp_path, **{f"MODFLEET_{name}": value})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"MODFLEET_{name}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"MODFLEET_STORAGE_OPTIONS": '{"colour": 1}'}, {"MODFLEET_STORAGE_BACKEND": "storages.None"}]
)
def test_a_storage_that_cannot_be_made_is_named(tmp_path, changes):
    done = check_deploy(tmp_path, **changes)
    assert done.returncode == 1
    assert "modfleet.E001" in done.stderr
    assert "Traceback" not in done.stderr
