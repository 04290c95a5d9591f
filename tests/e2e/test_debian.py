"""docs/howto/debian.md: each command, in order, next to Debian's redis-server as its package configures it."""

import os
import re
import subprocess
import sys

import pytest

from tests.e2e.test_enrolment import let_other_users_connect
from tests.fleet import PASSWORD, ROOT, Fleet, sample
from tests.host import clean
from tests.namespace import namespace
from tests.ports import free_port
from tests.waiting import wait_for

PAGE = ROOT / "docs/howto/debian.md"
SOCKET = "/run/redis/redis-server.sock"


@pytest.fixture
def control(start):
    """A control plane without nodes."""
    up = start("--nodes", "0", "--no-sample")
    with (fleet := Fleet(up, nodes=0)).api:
        let_other_users_connect(fleet)
        yield fleet


@pytest.fixture
def workstation(control, tmp_path):
    """Runs a block of the page on the workstation; returns what it prints."""
    program = tmp_path / "bin/modfleet"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec {sys.executable} -m modfleet "$@"\n')
    program.chmod(0o755)
    person = {"MODFLEET_URL": control.url, "MODFLEET_USER": "admin", "MODFLEET_PASSWORD": PASSWORD}

    def run(script):
        environ = clean() | person | {"HOME": str(tmp_path), "PATH": f"{program.parent}:{os.environ['PATH']}"}
        words = ["bash", "-euo", "pipefail", "-c", script]
        return subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True)

    return run


def test_each_command_of_the_page_works(control, workstation, tmp_path):
    sample(tmp_path, 10000).replace(tmp_path / "greet-1.0.0.zip")
    page = PAGE.read_text().replace("https://modfleet.example.com", control.url)
    blocks = re.findall(r"^<!-- (\w+) -->\n```sh\n(.*?)^```\n", page, re.MULTILINE | re.DOTALL)
    assert [where for where, _ in blocks] == ["workstation", "host", "host", "host", "host", "workstation", "host"]
    said = []
    with namespace() as host:
        assert "NoExecPaths=/\n" in host.read("/lib/systemd/system/redis-server.service")
        # The network is this machine's, and another server may have the port.
        change = f"sed -i 's/^port .*/port {free_port()}/' /etc/redis/redis.conf"
        started = host.run(f"{change} && systemctl enable --now redis-server")
        assert started.returncode == 0, started.stderr + host.run("cat /run/*.log").stdout
        for where, script in blocks:
            done = workstation(script) if where == "workstation" else host.run(script, cwd=tmp_path)
            assert done.returncode == 0, f"{script}: {done.stdout}\n{done.stderr}" + host.run("cat /run/*.log").stdout
            said.append(done.stdout)
            if "nodes add" in script:
                (tmp_path / "token").write_text(*re.findall(r"mfj1\S+", done.stdout))
            if "agent install" in script:
                wait_for(lambda: finding(control, "server_log"))
                assert "SupplementaryGroups=adm" in finding(control, "server_log")["fix"]
                assert "SupplementaryGroups=adm" in workstation("modfleet nodes show web-1").stdout
        _, _, installed, _, checked, _, listed = said
        assert "web-1 is online" in installed
        assert "to do by you" not in installed
        assert "fail " not in checked
        assert "pass     exec_paths" in checked
        assert "greet" in listed
        assert "/usr/lib/modfleet/web-1/" in listed
        agent = "setpriv --reuid=modfleet-agent --regid=modfleet-agent"
        assert host.run(f"{agent} --groups=adm tail -1 /var/log/redis/redis-server.log").returncode == 0
        assert host.run(f"{agent} --clear-groups tail -1 /var/log/redis/redis-server.log").returncode != 0
        wait_for(lambda: finding(control, "server_log")["status"] == "pass")
        _a_failed_load_is_reported_with_the_words_of_the_server(control, host, tmp_path)
        _elsewhere_the_unit_refuses_it(host)


def finding(control, check):
    """What the agent's own doctor has found, once it has."""
    return next((each for each in control.node("web-1")["doctor"] or () if each["check"] == check), None)


def _a_failed_load_is_reported_with_the_words_of_the_server(control, host, tmp_path):
    """The agent reads them in the log: its user may not ask the server for the path."""
    assert host.run("touch /var/lib/redis/refuse").returncode == 0
    assert control.upload(sample(tmp_path, 10001, picky=True)).status_code == 201
    rollout = control.carry_out(10001)
    assert rollout["progress"]["failed"] == 1, rollout
    (failure,) = control.get(f"/v2/rollouts/{rollout['uid']}/why")["failures"]
    assert any("initialization failed" in line for line in failure["server_log"]), failure


def _elsewhere_the_unit_refuses_it(host):
    """The same module below /var/lib is what the unit's NoExecPaths refuses."""
    script = (
        f"redis-cli -s {SOCKET} MODULE UNLOAD greet\n"
        "cp $(find /usr/lib/modfleet/web-1 -name '*.so') /var/lib/redis/greet.so; chmod 755 /var/lib/redis/greet.so\n"
        f"redis-cli -s {SOCKET} MODULE LOAD /var/lib/redis/greet.so\n"
        "cat /var/log/redis/redis-server.log"
    )
    assert "failed to map segment from shared object" in host.run(script).stdout
