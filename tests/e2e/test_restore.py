"""docs/howto/backup-and-restore.md, as it says: what is in the log, and what is beside it, comes back."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/howto/backup-and-restore.md").read_text()
COMMANDS = Path(sys.executable).parent
PASSWORD = "correct horse battery staple"

pytestmark = pytest.mark.slow

#: An account, and a webhook that has had what there was.
USE = """
from accounts.roles import Role
from accounts.services import create_user
from webhooks.services import register_webhook
create_user(name="alice", email="alice@example.com", password={password!r}, role=Role.ADMIN, by=None)
register_webhook(url="https://receiver.example.com/", types=("cluster.",), enabled=True, secret=None)
"""
#: An event that it wants.
MORE = """
from uuid import uuid4
from accounts.services import update_cluster_settings
update_cluster_settings(name=uuid4().hex)
"""
#: What there is of them, and what waits for the webhook first.
LOOK = """
import json
from accounts.models import User
from webhooks.deliver import claim_due
from webhooks.models import Webhook
(hook,), (claim,) = Webhook.objects.all(), claim_due(busy=(), most=1).claims
print(json.dumps({{
    "password": User.objects.get(email="alice@example.com").check_password({password!r}),
    "secret": hook.secret,
    "waits": claim.waiting[0].type,
}}))
"""


def run(folder, *words, script=None):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MODFLEET_")}
    done = subprocess.run(
        words,
        cwd=folder,
        env=environ | {"PATH": f"{COMMANDS}:{environ['PATH']}", "PYTHONPATH": str(ROOT)},
        input=script,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(folder, code):
    setup = "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'config.settings'\nimport django; django.setup()\n"
    return run(folder, sys.executable, "-", script=setup + code.format(password=PASSWORD))


def lines_of(mark, backup):
    """The page's lines of shell, with the folder `backup` instead of /backup."""
    (block,) = re.findall(rf"^<!-- {mark} -->\n```sh\n(.*?)^```\n", PAGE, re.MULTILINE | re.DOTALL)
    return block.replace("/backup", str(backup)).splitlines()


def test_what_was_backed_up_is_restored(tmp_path):
    old, new, backup = (tmp_path / each for each in ("old", "new", "backup"))
    for each in (old, new, backup):
        each.mkdir()
    run(old, "modfleet-manage", "migrate", "--verbosity", "0")
    python(old, USE)
    for line in lines_of("backup", backup):
        run(old, "bash", "-c", line)
        python(old, MORE)  # everything goes on
    (log,) = backup.glob("*.jsonl.gz")
    header = json.loads(gzip.decompress(log.read_bytes()).splitlines()[0])
    shutil.move(log, backup / "modfleet-2026-11-23.jsonl.gz")
    for line in lines_of("restore", backup):
        run(new, "bash", "-c", line)
    run(new, "modfleet-manage", "verify_log", "--head", f"{header['head']}:{header['hash']}")
    run(new, "modfleet-manage", "rebuild_projections", "--check")
    (kept,) = [each["fields"] for each in json.loads((backup / "state.json").read_text()) if "secret" in each["fields"]]
    assert json.loads(python(new, LOOK)) == {
        "password": True,
        "secret": kept["secret"],
        "waits": "cluster.settings_changed.v1",
    }
