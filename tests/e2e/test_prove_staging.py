"""`modfleet prove --staging`, as a user runs it: a master with a replica, an agent for each, and the examples of the how-to."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from modfleet.proof.history import read_changes
from tests.fleet import PASSWORD, PAUSE, ROOT, Fleet, remove_folder, running_fleet, short_folder
from tests.integration.agent.conftest import VALKEY
from tests.proof.packages import packages_of
from tests.shards import Machine, machines, module, sentinel, upload
from tests.topologies import trio
from tests.waiting import PATIENCE, wait_for

HOWTO = ROOT / "docs/howto/prove.md"
SETTINGS = {"MODFLEET_BEAT_SECONDS": "1", "MODFLEET_SCRATCH_SECONDS": "5", "MODFLEET_PERSISTENCE": "rewrite"}
QUICK = {"settle_seconds": 0.1}


@pytest.fixture(scope="module")
def control(tmp_path_factory) -> Iterator[Fleet]:
    """A control plane with two versions of each module."""
    with running_fleet(nodes=0) as fleet:
        folder = tmp_path_factory.mktemp("packages")
        for version in (1, 2):
            entries = {"NAME": '"entries"'}
            upload(fleet, module(folder, "entries", version, "entries.add", "entries.get", **entries))
            upload(fleet, module(folder, "writes", version, "writes.set"))
        yield fleet


@pytest.fixture(scope="module")
def shard(control) -> Iterator[Sequence[Machine]]:
    """A master and its replica, with version 1 of both modules."""
    root = short_folder()
    a, b = (Machine(name, root / name, VALKEY, settings=SETTINGS) for name in ("a", "b"))
    try:
        with machines(control, (a, b)):
            b.follow(a)
            wait_for(lambda: b.is_in_step(a))
            wait_for(lambda: control.node("b")["master"] == "a", pause=PAUSE)
            yield a, b
    finally:
        remove_folder(root)


@pytest.fixture
def installed(control, shard):
    """The servers, each with version 1 of both modules."""
    for name in ("entries", "writes"):
        install(control, name, 1)
    return shard


def install(control: Fleet, name: str, version: int) -> None:
    body = {"action": "install", "module_name": name, "version": version, "strategy": QUICK, "supersede": True}
    uid = control.post("/v2/rollouts", body)["uid"]
    control.wait_for_rollout(uid, "succeeded")


def example(name: str) -> dict[str, Any]:
    """The example of the how-to."""
    (found,) = re.findall(rf"<!-- staging: {name} -->\n```yaml\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    document: dict[str, Any] = yaml.safe_load(found)
    return document


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def prove(control, tmp_path) -> Iterator[Start]:
    """Starts the command with a file. Its directory is `proof`."""
    started: list[subprocess.Popen[str]] = []

    def start(document: dict[str, Any], *words: str) -> "subprocess.Popen[str]":
        file = tmp_path / "staging.yaml"
        file.write_text(yaml.safe_dump(document))
        given = {key: value for key, value in os.environ.items() if not key.startswith(("MODFLEET_", "DJANGO_"))}
        person = {"MODFLEET_URL": control.url, "MODFLEET_USER": "admin", "MODFLEET_PASSWORD": PASSWORD}
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "modfleet",
                "prove",
                "--staging",
                str(file),
                "--out",
                str(tmp_path / "proof"),
                *words,
            ],
            cwd=ROOT,
            env=given | person,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for each in started:
        each.kill()
        each.communicate()


def plain(machine: Machine, name: str = "list") -> dict[str, Any]:
    """The example, with this server."""
    return example(name) | {"servers": {"url": f"redis://127.0.0.1:{machine.port}"}}


def certificate(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / "proof/certificate.json").read_text())
    return made


def keys(machines: Sequence[Machine]) -> list[str]:
    return [key for each in machines for key in each.call("KEYS", "*proof:*")]


def upgrade(name: str, version: int) -> list[str]:
    rollout = [sys.executable, "-m", "modfleet", "rollout", "start", name, str(version), "--settle", "0.1", "--watch"]
    return ["--baseline", "1", "--", *rollout]


def recorded(folder: Path) -> int:
    """The calls of all clients."""
    return sum(each.read_bytes().count(b"\n") for each in (folder / "proof").glob("history-client*"))


def test_an_upgrade_is_proven_and_no_key_is_left(installed, prove, tmp_path):
    process = prove(plain(installed[0]), *upgrade("entries", 2))
    printed, errors = process.communicate(timeout=PATIENCE * 2)
    assert process.returncode == 0, printed + errors
    assert "**The proof succeeded: 0 violations in " in printed
    assert printed == (tmp_path / "proof/certificate.md").read_text()
    (run,) = certificate(tmp_path)["runs"]
    assert (run["modules"], run["changes"]) == ({"entries": ["1", "2"]}, {"upgrade": 1})
    assert (run["topology"], len(run["servers"]), run["notes"]) == ("1 master, 1 replica", 2, [])
    assert run["writes"] > run["reads"] > 50
    assert run["quiet_stall"] > 0
    assert keys(installed) == []


def test_the_clients_follow_a_failover(control, prove, tmp_path):
    """Without Sentinel and cluster, they ask the other servers which of them is the master now."""
    with (
        packages_of(control) as packages,
        trio(control, "away", VALKEY, save="3600 1", MODFLEET_FAILOVER="command") as shard,
    ):
        for version in (1, 2):
            packages.provide("keeps", version)
        shard.carry_out("install", "keeps", 1)
        commands = {"add": ["keeps.add", "{key}", "{entry}"], "get": ["keeps.get", "{key}"]}
        document = plain(shard.machines[0]) | {"module": "keeps", "commands": commands}
        process = prove(document, *upgrade("keeps", 2), "--may-interrupt")
        printed, errors = process.communicate(timeout=PATIENCE * 2)
        assert process.returncode == 0, printed + errors
        (run,) = certificate(tmp_path)["runs"]
        assert (run["topology"], run["changes"]) == ("1 master, 2 replicas", {"upgrade": 1})
        assert shard.machines[0].master_port() != 0
        assert keys(shard.machines) == []


def test_the_certificate_can_be_repeated(installed, control, prove, tmp_path):
    prove(plain(installed[0]), "--minutes", "0.1").communicate(timeout=PATIENCE)
    made = certificate(tmp_path)
    (run,) = made["runs"]
    again = subprocess.run(
        [sys.executable, *run["command"].split()[1:], "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(again.stdout)["acknowledged"] == run["acknowledged"] == made["acknowledged"] > 0
    head = run["log_head"]
    assert control.get("/v2/events/head")["position"] >= head["position"] > 0
    assert "No rollout changed a server meanwhile." in run["notes"]


def test_a_register_through_sentinel(installed, prove, tmp_path):
    master = installed[0]
    with sentinel(tmp_path, master) as watcher:
        document = example("register")
        document["servers"] = {"sentinel": {"hosts": [f"127.0.0.1:{watcher.port}"], "name": "main"}}
        process = prove(document, *upgrade("writes", 2), "--json")
        printed, errors = process.communicate(timeout=PATIENCE * 2)
    assert process.returncode == 0, printed + errors
    (run,) = certificate(tmp_path)["runs"]
    assert run["modules"] == {"writes": ["1", "2"]}
    assert keys(installed) == []


def test_a_rollout_in_progress(installed, control, prove, tmp_path):
    body = {"action": "install", "module_name": "entries", "version": 2, "strategy": {**QUICK, "gate": "manual"}}
    uid = control.post("/v2/rollouts", body)["uid"]
    control.wait_for_wave(uid, 0, "gated")
    process = prove(plain(installed[0]), "--rollout", uid, "--baseline", "1")
    wait_for(lambda: recorded(tmp_path) > 200)
    gated_at = time.monotonic()
    wait_for(lambda: recorded(tmp_path) > 600)
    control.post(f"/v2/rollouts/{uid}/promote")
    printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed + errors
    assert f"rollout {uid}: " in errors
    changes = list(read_changes(tmp_path / "proof"))
    assert not [each for each in changes if each.started_at <= gated_at <= each.ended_at]
    assert certificate(tmp_path)["runs"][0]["changes"] == {"upgrade": 1}
    assert keys(installed) == []


def test_an_attempt_that_loads_and_takes_back_is_repeated(installed, control, prove, tmp_path):
    """The version goes back in the first attempt, and forward again in the second one."""
    upload(control, module(tmp_path, "entries", 3, "entries.add", "entries.get", "entries.more", NAME='"entries"'))
    for each in installed:
        (each.folder / "less-3").touch()  # without the command `entries.more`
    process = prove(plain(installed[0]), "--minutes", "0.1")
    wait_for(lambda: recorded(tmp_path) > 200)
    strategy = {**QUICK, "on_failure": "pause"}
    body = {"action": "install", "module_name": "entries", "version": 3, "strategy": strategy, "supersede": True}
    uid = control.post("/v2/rollouts", body)["uid"]
    control.wait_for_rollout(uid, "paused")
    before = recorded(tmp_path)
    wait_for(lambda: recorded(tmp_path) > before + 100)
    for each in installed:
        (each.folder / "less-3").unlink()
    control.post(f"/v2/rollouts/{uid}/retry")
    control.post(f"/v2/rollouts/{uid}/resume")
    control.wait_for_rollout(uid, "succeeded")
    printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed + errors
    (run,) = certificate(tmp_path)["runs"]
    assert run["changes"] == {"failed upgrade": 1, "upgrade": 1}
    assert run["modules"] == {"entries": ["1", "3"]}


def test_a_module_that_is_away_for_a_moment_is_found(installed, prove, tmp_path):
    master = installed[0]
    process = prove(plain(master), "--minutes", "0.2")
    wait_for(lambda: recorded(tmp_path) > 200)
    (path,) = {each["path"] for each in master.call("MODULE LIST") if each["name"] == "entries"}
    master.call("MODULE", "UNLOAD", "entries")
    before = recorded(tmp_path)
    wait_for(lambda: recorded(tmp_path) > before + 10)
    master.call("MODULE", "LOAD", path)
    printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, printed + errors
    assert "- `load_error`: " in printed
    assert certificate(tmp_path)["runs"][0]["violations_by_rule"]["load_error"] > 0
    assert keys(installed) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_deletes_the_keys(installed, prove, tmp_path, number):
    process = prove(plain(installed[0]), "--minutes", "10")
    wait_for(lambda: recorded(tmp_path) > 200)
    assert keys(installed)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, printed) == (130, "")
    assert keys(installed) == []
    assert not (tmp_path / "proof/certificate.json").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"module": "absent"}, "absent is not loaded on 127.0.0.1:"),
        ({"entries_at": 0}, "commands.get: 'a' is no whole number."),
        ({"entries_at": 1}, "it reads [1] from a key that was never written. Check entries_at."),
        ({"rate": 5000}, "rate: 5,000 per second is more than 2,000. --yes accepts that."),
        ({"servers": {"url": "redis://127.0.0.1:1"}}, "No server can be used: 127.0.0.1:1: closed: "),
        ({"commands": {"add": ["nothing", "{key}", "{entry}"], "get": ["GET", "{key}"]}}, "commands.add failed: "),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_started(installed, prove, tmp_path, change, sentence):
    process = prove(plain(installed[0]) | change, "--minutes", "1")
    printed, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, printed) == (2, "")
    assert sentence in errors
    assert not (tmp_path / "proof").exists()
    assert keys(installed) == []
