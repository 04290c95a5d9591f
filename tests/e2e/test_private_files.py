"""Nobody else on the machine reads what the control plane, an agent or a person's own commands keep."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MASKS = pytest.mark.parametrize("mask", [0o000, 0o022], ids=["umask-000", "umask-022"])


def run(folder, mask, *words):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MODFLEET_")}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environ | {"PYTHONPATH": str(ROOT), "HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config")},
        umask=mask,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


def manage(folder, mask, *words):
    return run(folder, mask, str(ROOT / "manage.py"), *words)


def open_to_others(folder):
    found = [each for each in folder.rglob("*") if not each.is_symlink()]
    assert found
    return sorted(str(each.relative_to(folder)) for each in found if each.stat().st_mode & 0o077)


@MASKS
def test_the_commands_of_the_control_plane(tmp_path, mask):
    manage(tmp_path, mask, "migrate", "--verbosity", "0")
    manage(tmp_path, mask, "bootstrap")
    manage(tmp_path, mask, "dumpdata", "accounts", "webhooks", "--output", "state.json")
    manage(tmp_path, mask, "backup_log", "log.jsonl.gz")
    script = (
        "import django; django.setup()\n"
        "from django.conf import settings\n"
        "from artifacts_app.storage import Spool\n"
        "from eventstore.heads import note_head\n"
        "from django.db import connection, transaction\n"
        "note_head(settings.ENVIRONMENT.log_heads_path)\n"
        "with Spool() as spool: spool.write(b'x'); spool.store()\n"
        "connection.cursor().execute('delete from django_session')\n"
        "from pathlib import Path\n"
        "print(*[f'{each.name}:{each.stat().st_mode & 0o777:o}' for each in Path('.modfleet').glob('*.sqlite3*')])\n"
    )
    (tmp_path / "script.py").write_text(
        f"import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'config.settings'\n{script}"
    )
    said = run(tmp_path, mask, "script.py").stdout
    assert set(said.split()) == {f"modfleet.sqlite3{end}:600" for end in ("", "-shm", "-wal")}
    (tmp_path / "script.py").unlink()
    assert {"state.json", "log.jsonl.gz"} <= {each.name for each in tmp_path.iterdir()}
    assert {"secret_key", "log-heads", "artifacts"} <= {each.name for each in (tmp_path / ".modfleet").iterdir()}
    assert open_to_others(tmp_path) == []


def test_what_an_older_version_left_open_is_closed(tmp_path):
    manage(tmp_path, 0o022, "migrate", "--verbosity", "0")
    (tmp_path / "state.json").touch()
    for each in (tmp_path / "state.json", tmp_path / ".modfleet", *(tmp_path / ".modfleet").iterdir()):
        each.chmod(0o755 if each.is_dir() else 0o644)
    manage(tmp_path, 0o022, "dumpdata", "accounts", "--output", "state.json")
    assert open_to_others(tmp_path) == []


def test_a_folder_that_anyone_may_add_to_stays_as_it_is(tmp_path):
    folder = tmp_path / ".modfleet"
    folder.mkdir()
    folder.chmod(0o1777)
    manage(tmp_path, 0o022, "check")
    assert folder.stat().st_mode & 0o7777 == 0o1777
    assert open_to_others(folder) == []


@MASKS
def test_the_journal_of_an_agent(tmp_path, mask):
    """Modules and the file with their lines are for the server, another user; the journal is for the agent alone."""
    script = (
        "from pathlib import Path\n"
        "from rollout.agent.node.journal import Before, Entry, Journal\n"
        "journal = Journal(Path('journal'))\n"
        "with journal.lock(): journal._write('greet', Entry(rollout='r', generation=1, attempt=1, before=Before()))\n"
    )
    run(tmp_path, mask, "-c", script)
    run(tmp_path, mask, "-c", script)
    assert open_to_others(tmp_path) == []
    for each in (tmp_path / "journal").iterdir():
        each.chmod(0o644)
    run(tmp_path, mask, "-c", script.partition("with")[0])
    assert open_to_others(tmp_path) == []


@MASKS
def test_the_login_of_a_person(tmp_path, mask):
    script = (
        "from pathlib import Path\n"
        "from modfleet.profile import Profile, write_profile\n"
        "write_profile(Path('config/modfleet/config.toml'), Profile(url='http://a', token='secret'))\n"
    )
    run(tmp_path, mask, "-c", script)
    assert open_to_others(tmp_path / "config" / "modfleet") == []


def test_a_whole_cluster_on_one_machine(folder):
    """Files that are private under this mask are so under each."""
    words = [sys.executable, "-m", "modfleet", "up", "--tls", "--no-sample", "--nodes", "1", "--port", "0"]
    words += ["--data-dir", str(folder / "data")]
    with (folder / "said").open("w") as said:
        up = subprocess.Popen(words, cwd=ROOT, umask=0, stdout=said, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: "Ctrl-C" in (folder / "said").read_text() or up.poll() is not None)
            assert up.poll() is None, (folder / "said").read_text()
            made = {each.name for each in (folder / "data").rglob("*")}
            assert {"admin_password", "key.pem", "secret_key", "api.log", "modfleet.sqlite3-wal", "journal"} <= made
            # A server may run as another user and reads its modules. Here, only this user can enter the data directory.
            assert open_to_others(folder / "data") == ["nodes/node-1/modules"]
            assert (folder / "data").stat().st_mode & 0o777 == 0o700
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait()
