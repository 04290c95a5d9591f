"""`modfleet-manage` where there is nothing yet: what only reads says so, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.slow


def manage(folder, *words, **variables):
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MODFLEET_", "DJANGO_"))}
    return subprocess.run(
        [sys.executable, ROOT / "manage.py", *words],
        cwd=folder,
        env=environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["verify_log"],
        ["backup_log", "copy"],
        ["rebuild_projections"],
        ["rebuild_projections", "--check"],
        ["dumpdata"],
        ["showmigrations"],
        ["bootstrap"],
        ["restore_log", "copy"],
        ["migrate", "--check"],
        ["migrate", "--plan"],
        ["sqlmigrate", "rollout", "0001"],
    ],
)
def test_what_reads_says_that_there_is_no_database(tmp_path, words):
    ended = manage(tmp_path, *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"There is no database at {tmp_path}/.modfleet/modfleet.sqlite3. Set MODFLEET_DATA_DIR or "
        "MODFLEET_DATABASE_URL to yours, or create a new database with `modfleet-manage migrate`.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_a_log(tmp_path):
    (tmp_path / "empty").touch()
    ended = manage(tmp_path, "verify_log", MODFLEET_DATABASE_URL=f"sqlite:///{tmp_path}/empty")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"The database {tmp_path}/empty has no log yet. Set MODFLEET_DATA_DIR")
    assert ended.stderr.count("\n") == 1


def test_a_database_of_the_version_before(tmp_path):
    assert manage(tmp_path, "migrate").returncode == 0
    assert manage(tmp_path, "migrate", "rollout", "0009").returncode == 0
    for words in (["rebuild_projections", "--check"], ["bootstrap"]):
        ended = manage(tmp_path, *words)
        assert (ended.returncode, ended.stderr) == (
            2,
            "The database is from another version. Run `modfleet-manage migrate` first.\n",
        )


def test_a_database_that_does_not_answer(tmp_path):
    ended = manage(tmp_path, "verify_log", MODFLEET_DATABASE_URL=f"postgresql:///modfleet?host={tmp_path}")
    assert ended.returncode == 2
    assert ended.stderr.startswith("The database cannot be read: ")
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["help"],
        ["--version"],
        ["verify_log", "--help"],
        ["broker_acl", "n1"],
        ["spectacular"],
        ["makemigrations", "--check"],
    ],
)
def test_what_only_tells_leaves_nothing_behind(tmp_path, words):
    assert manage(tmp_path, *words).returncode == 0
    assert list(tmp_path.iterdir()) == []
