"""The tutorial, and the how-to about bytes, as pasted."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fleet import PASSWORD, ROLLOUTS, ROOT, sample

#: Where `modfleet` is.
COMMANDS = Path(sys.executable).parent


def paste(fleet, page, mark, *, folder=ROOT, placeholders=None, **environ):
    """What the page's blocks of shell print, run as one script. `placeholders`: what a reader writes in their place."""
    text = (ROOT / "docs" / page).read_text()
    blocks = re.findall(rf"^<!-- {mark} -->\n```sh\n(.*?)^```\n", text, re.MULTILINE | re.DOTALL)
    assert blocks
    script = "\n".join(blocks)
    for placeholder, value in (placeholders or {}).items():
        assert placeholder in script
        script = script.replace(placeholder, value)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ
        | {"MODFLEET_URL": fleet.url, "MODFLEET_PASSWORD": PASSWORD, "PATH": f"{COMMANDS}:{os.environ['PATH']}"}
        | environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_tutorial(fleet, tmp_path):
    fleet.upload(sample(tmp_path, 10000))
    fleet.carry_out(10000)  # as `make run` leaves its nodes
    said = paste(fleet, "tutorial.md", "tutorial")
    assert "max_failures" in said
    assert "probe_failed" in said
    assert all("greet 1.2.0" in each for each in fleet.greetings())


def test_who_has_which_bytes(fleet, uploaded):
    version = uploaded()
    user = {"name": "alice", "email": "alice@example.com", "password": PASSWORD, "role": "admin"}
    fleet.post("/v1/users", user, status=200)
    with fleet.client("alice", PASSWORD) as alice:
        body = {"action": "install", "module_name": "greet", "version": version, "strategy": {"settle_seconds": 0}}
        ended = fleet.end_of(alice.post(ROLLOUTS, json=body).json()["uid"])
    environ = {"MODFLEET_USER": "admin", "NODE": "node-2", "MODULE": "greet", "ROLLOUT": ended["uid"]}
    said = paste(fleet, "howto/who-has-which-bytes.md", "answered", MOMENT=ended["finished_at"], **environ)
    (has,) = [each for each in fleet.node("node-2")["modules"] if each["version"] == version]
    by_command, by_request = said.split('{"name"', maxsplit=1)
    assert has["content_sha256"] in by_command
    assert re.search(
        rf"^\S+Z\s+install greet {version}\s+1\s+succeeded\s.*{ended['uid']}\s+alice$", by_command, re.MULTILINE
    )
    assert by_request.count(has["content_sha256"]) > 1
