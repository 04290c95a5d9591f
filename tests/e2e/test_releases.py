"""Neighbouring releases work together: old agents with this control plane, and agents of this release with an old one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modfleet.valkey import valkey_server
from tests.fleet import PAUSE, ROOT, Fleet, Up, remove_folder, short_folder
from tests.waiting import wait_for

#: The last commit before messages were signed.
FORMER_RELEASE = "5cff6b4ac495e265d133eba0de7732e178ea17d6"
CODE = [
    "accounts",
    "api",
    "artifacts_app",
    "config",
    "console",
    "durable",
    "eventstore",
    "modfleet",
    "modules_app",
    "operations",
    "rollout",
    "ui",
    "webhooks",
]


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the former release."""
    folder = tmp_path_factory.mktemp("former")
    archive = subprocess.run(["git", "archive", FORMER_RELEASE, *CODE], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


class Host:
    """A server and an agent, started by hand. The agent has no identity, as before messages were signed."""

    def __init__(self, name: str, folder: Path, fleet: Fleet, broker_url: str) -> None:
        self.name, self.folder = name, folder / name
        self.folder.mkdir(parents=True)
        self.socket = self.folder / "s"
        (self.folder / "modules.conf").touch()
        words: list[str | Path] = [
            valkey_server(),
            "--port",
            "0",
            "--unixsocket",
            self.socket,
            "--enable-module-command",
            "local",
        ]
        self.server = subprocess.Popen([*words, "--save", "", "--dir", self.folder], stdout=subprocess.DEVNULL)
        self.agent: subprocess.Popen[bytes] | None = None
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MODFLEET_", "DJANGO_"))}
        self.environ = {
            **kept,
            "MODFLEET_NODE": name,
            "MODFLEET_BROKER_URL": broker_url,
            "MODFLEET_CONTROL_URL": fleet.url,
            "MODFLEET_SERVER_URL": f"unix://{self.socket}",
            "MODFLEET_MODULES_DIR": str(self.folder / "modules"),
            "MODFLEET_INCLUDE_FILE": str(self.folder / "modules.conf"),
            "MODFLEET_JOURNAL_DIR": str(self.folder / "journal"),
            "MODFLEET_BEAT_SECONDS": "1",
        }

    def start(self, code: Path) -> None:
        """Start the agent of this code."""
        self.stop()
        words = [sys.executable, "-m", "celery", "-A", "rollout.agent", "worker", "-l", "INFO"]
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(words, cwd=code, env=self.environ, stdout=log, stderr=log)

    def stop(self) -> None:
        if self.agent is not None:
            self.agent.terminate()
            self.agent.wait()
            self.agent = None

    def end(self) -> None:
        self.stop()
        self.server.kill()
        self.server.wait()


class World:
    """Control planes and hosts that end with the test."""

    def __init__(self) -> None:
        self.folder = short_folder()
        self.hosts: list[Host] = []
        self.fleets: list[Fleet] = []
        self.ups: list[Up] = []

    def up(self, code: Path) -> Fleet:
        """A control plane of this code without nodes, on the same data each time."""
        up = Up(self.folder / "data", "--nodes", "0", "--no-sample", output=self.folder, code=code)
        self.ups.append(up)
        self.fleets.append(Fleet(up, nodes=0))
        return self.fleets[-1]

    def host(self, name: str, fleet: Fleet, broker_url: str) -> Host:
        self.hosts.append(Host(name, self.folder / "hosts", fleet, broker_url))
        return self.hosts[-1]

    def end(self) -> None:
        for host in self.hosts:
            host.end()
        for fleet in self.fleets:
            fleet.api.close()
        for up in self.ups:
            up.end()
            up.sweep()
        remove_folder(self.folder)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.end()


def online(fleet: Fleet, count: int) -> bool:
    phases = [each["phase"] for each in fleet.get("/v2/nodes")["results"]]
    return phases.count("online") == count


def old_broker_url(fleet: Fleet) -> str:
    return f"redis+socket://{fleet.folder}/broker/valkey.sock"


@pytest.mark.timeout(400)
def test_agents_of_the_former_release_with_this_control_plane(world: World, former: Path, package: Any) -> None:
    """Upgrade the control plane, then the agents, each during a rollout. The nodes stay as they were: unsigned."""
    old = world.up(former)
    names = [f"n{number}" for number in range(1, 4)]
    for name in names:
        world.host(name, old, old_broker_url(old)).start(former)
    wait_for(lambda: online(old, 3), pause=PAUSE)
    first, path = package()
    assert old.upload(path).status_code == 201
    assert old.carry_out(first)["progress"]["succeeded"] == 3
    old.up.end()

    new = world.up(ROOT)
    for host in world.hosts:
        host.environ |= {"MODFLEET_BROKER_URL": new.broker_url(), "MODFLEET_CONTROL_URL": new.url}
        host.start(former)
    wait_for(lambda: online(new, 3), pause=PAUSE)
    second, path = package()
    assert new.upload(path).status_code == 201
    uid = new.start(second, strategy={"max_parallel": 1, "canary": 1, "settle_seconds": 1})
    wait_for(lambda: "succeeded" in new.phases(uid).values(), pause=PAUSE)
    world.hosts[1].start(ROOT)  # in the middle of the rollout
    assert new.end_of(uid)["progress"]["succeeded"] == 3
    for name in names:
        node = new.node(name)
        assert node["identity"] == "unsigned"
        assert [each["code"] for each in node["warnings"]] == ["unsigned"]
    refused = world.host("n4", new, new.broker_url())
    refused.start(former)  # an agent that never joined is not heard
    log = refused.folder / "agent.log"
    wait_for(lambda: "ready" in log.read_text())
    dropped = 'modfleet_dropped_messages_total{queue="control.beats",reason="unknown_node"}'
    wait_for(lambda: dropped in new.api.get("/metrics").text)
    assert {each["name"] for each in new.get("/v2/nodes")["results"]} == set(names)
    assert new.post("/v2/nodes/n3/revoke", status=200)["identity"] == "revoked"
    new.wait_for_phase("n3", "offline")


@pytest.mark.timeout(400)
def test_agents_of_this_release_with_the_former_control_plane(world: World, former: Path, package: Any) -> None:
    """An agent that was upgraded first has no identity yet, and works as before."""
    old = world.up(former)
    for name in ("n1", "n2", "n3"):
        world.host(name, old, old_broker_url(old)).start(former)
    wait_for(lambda: online(old, 3), pause=PAUSE)
    first, path = package()
    assert old.upload(path).status_code == 201
    uid = old.start(first, strategy={"max_parallel": 1, "canary": 1, "settle_seconds": 1})
    wait_for(lambda: "succeeded" in old.phases(uid).values(), pause=PAUSE)
    for host in world.hosts:
        host.start(ROOT)
    assert old.end_of(uid)["progress"]["succeeded"] == 3
    assert old.carry_out(first, "remove")["progress"]["succeeded"] == 3
