"""docs/howto/containers.md: each command, in order, with the containers of deploy/kubernetes.yaml as processes."""

import json
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.fleet import PASSWORD, ROOT, Fleet, sample
from tests.host import blocks, clean
from tests.pods import Cluster
from tests.ports import free_port
from tests.waiting import wait_for

PAGE = ROOT / "docs/howto/containers.md"
SERVER_MODULES = shlex.split("exec cache-0 --container server -- valkey-cli -p 6379 MODULE LIST")


@pytest.fixture
def control(start):
    """A control plane without nodes."""
    up = start("--nodes", "0", "--no-sample")
    with (fleet := Fleet(up, nodes=0)).api:
        yield fleet


@pytest.fixture
def cluster(control, folder):
    root = folder / "pod"
    root.mkdir()
    replaced = {"https://modfleet.example.com": control.url, "6379": str(free_port())}
    made = Cluster(root, replaced, {"MODFLEET_BEAT_SECONDS": "2"})  # has precedence over what the control plane gives
    yield made
    made.stop()


@pytest.fixture
def run(control, cluster, tmp_path):
    """Runs a line of the page on the workstation; returns what it prints."""
    program = tmp_path / "bin/modfleet"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {sys.executable} -m modfleet "$@"\n')
    program.chmod(0o755)
    person = {"MODFLEET_URL": control.url, "MODFLEET_USER": "admin", "MODFLEET_PASSWORD": PASSWORD}

    def run_line(line):
        words = shlex.split(line)
        if words[0] == "kubectl":
            return cluster.run(words[1:], cwd=tmp_path)
        environ = clean() | person | {"HOME": str(tmp_path)}
        environ["PATH"] = f"{program.parent}:{environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=tmp_path, env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}: {done.stdout}\n{done.stderr}\n{cluster.log('agent')[-2000:]}"
        return done.stdout

    return run_line


def test_each_command_of_the_page_works(control, cluster, run, tmp_path):
    sample(tmp_path, 10000).replace(tmp_path / "greet-1.0.0.zip")
    said = []
    for line in blocks(PAGE, "containers").splitlines():
        if line == "modfleet nodes":
            wait_for(lambda: _phase(control) == "online" and control.node("cache-0")["server"])
        said.append((line, run(line)))
    lists = [text for line, text in said if line.endswith("MODULE LIST")]
    assert len(lists) == 2
    assert all("greet" in each for each in lists)
    (checked,) = [text for line, text in said if "--env-file" in line]
    assert "fail " not in checked
    node = control.node("cache-0")
    assert (node["labels"], node["identity"]) == ({"tier": "cache"}, "signed")
    _a_killed_agent_is_the_same_node(control, cluster)
    _a_lost_volume_is_the_same_node(control, cluster)
    _a_failed_load_says_that_the_log_is_missing(control, cluster, tmp_path)


def _a_killed_agent_is_the_same_node(control, cluster):
    """The token is not needed again, and the server works without the agent."""
    identity = cluster.path("/modfleet/agent/identity.json")
    before, token = identity.read_bytes(), cluster.path("/run/secrets/modfleet/join_token")
    kept = token.read_text()
    token.unlink()
    cluster.kill("agent")
    wait_for(lambda: _phase(control) == "offline")
    assert "greet" in cluster.run(SERVER_MODULES, cwd=ROOT)
    cluster.keep_running()
    wait_for(lambda: _phase(control) == "online")
    assert identity.read_bytes() == before
    token.write_text(kept)


def _a_failed_load_says_that_the_log_is_missing(control, cluster, tmp_path):
    (cluster.path("/data") / "refuse").touch()
    assert control.upload(sample(tmp_path, 10001, picky=True)).status_code == 201
    rollout = control.carry_out(10001)
    assert rollout["progress"]["failed"] == 1, rollout
    assert "The agent cannot read the server's log" in control.operation(rollout["uid"], "cache-0")["message"]


def _a_lost_volume_is_the_same_node(control, cluster):
    """It is refused until the node has been silent for three heartbeats. Then it has its labels, and its modules are drift."""
    assert control.api.put("/v1/cluster", json={"correct_drift": True}).status_code == 200
    identity = cluster.path("/modfleet/agent/identity.json")
    key = json.loads(identity.read_bytes())["credentials"]["private_key"]
    cluster.kill("agent")
    cluster.stop()
    shutil.rmtree(cluster.path("/modfleet"))
    cluster.run(["delete", "pod", "cache-0"], cwd=ROOT)
    wait_for(lambda: cluster.keep_running() and _joined_again(cluster, key), pause=0.2)
    assert "Another agent speaks for cache-0. Stop it and wait until the node is offline" in cluster.log("agent")
    wait_for(lambda: "greet" in cluster.run(SERVER_MODULES, cwd=ROOT), pause=0.2)
    wait_for(lambda: _phase(control) == "online")
    node = control.node("cache-0")
    assert (node["labels"], node["identity"]) == ({"tier": "cache"}, "signed")


def _joined_again(cluster, key):
    identity = cluster.path("/modfleet/agent/identity.json")
    settings = identity.with_suffix(".env")
    return settings.exists() and json.loads(identity.read_bytes())["credentials"]["private_key"] != key


def _phase(control):
    found = control.api.get("/v2/nodes/cache-0")
    return found.json()["phase"] if found.status_code == 200 else ""
