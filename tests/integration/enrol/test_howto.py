"""docs/howto/agent.md on a host of its own: each command for the host, in order, as root."""

import pwd
import re

import pytest

from tests.fleet import ROOT
from tests.host import blocks
from tests.namespace import debian_redis, namespace

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs/howto/agent.md"


@pytest.fixture
def host():
    with namespace() as made, debian_redis(made):
        yield made


def test_each_command_for_the_host_works(host, control, tmp_path):
    pasted = host.run(f"echo {control.token()} | {blocks(PAGE, 'host token')}", cwd=tmp_path)
    assert (pasted.returncode, (tmp_path / "token").stat().st_mode & 0o777) == (0, 0o600)
    commands = blocks(PAGE, "host").replace("https://modfleet.example.com", control.url).splitlines()
    assert len(commands) == 6
    *installs, uninstall = commands
    said = [host.run(each, cwd=tmp_path) for each in installs]
    assert [(each.returncode, each.stderr) for each in said] == [(0, "")] * 5
    assert "the control plane received the first heartbeat: web-1 is online" in said[0].stdout
    assert "done " not in said[1].stdout
    assert "ACL SETUSER modfleet-agent" in said[1].stdout
    assert "to do by you" not in said[2].stdout
    assert "done " not in said[3].stdout + said[4].stdout
    assert host.run("stat -c %U:%a /var/lib/modfleet-agent/web-1/identity.json").stdout == "modfleet-agent:600\n"
    assert host.run("systemctl is-active modfleet-agent@web-1.service").returncode == 0
    assert "SupplementaryGroups=redis" in host.read("/etc/systemd/system/modfleet-agent@web-1.service.d/server.conf")
    assert "include /var/lib/modfleet-agent/web-1/modules/*.conf" in host.read("/etc/redis/redis.conf")
    assert host.run("stat -c %U:%G:%a /etc/redis/redis.conf").stdout == "redis:redis:640\n"
    done = host.run(uninstall)
    assert (done.returncode, done.stderr) == (0, ""), host.read("/run/modfleet-agent@web-1.service.log")
    assert host.run("systemctl is-active modfleet-agent@web-1.service").returncode != 0
    assert host.run("ls /etc/systemd/system | grep modfleet").stdout == ""


def test_without_systemd(host, control, tmp_path):
    (tmp_path / "token").write_text(control.token())
    command = blocks(PAGE, "without systemd").replace("https://modfleet.example.com", control.url)
    done = host.run(f"rm -r /run/systemd; {command}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    step = re.search(r"^to do by you  start the agent:\n.*$", PAGE.read_text(), re.MULTILINE)
    assert step
    assert done.stdout.endswith(f"{step[0]}\n")
    assert host.run("stat -c %U:%a /etc/modfleet/agents/web-1.env").stdout == "root:600\n"
    assert host.run("ls /etc/systemd/system | grep modfleet; id modfleet-agent").stdout == ""


def test_nothing_of_it_reaches_this_host(host):
    assert host.run("useradd --system modfleet-agent-of-a-test; touch /etc/modfleet-of-a-test").returncode == 0
    with pytest.raises(KeyError):
        pwd.getpwnam("modfleet-agent-of-a-test")


def test_a_node_moves_with_its_files(host, control, tmp_path):
    (tmp_path / "token").write_text(control.token())
    install = blocks(PAGE, "host").replace("https://modfleet.example.com", control.url).splitlines()[0]
    files = "/etc/modfleet/agents/web-1.env /var/lib/modfleet-agent/web-1"
    packed = host.run(
        f"{install} && systemctl disable --now modfleet-agent@web-1 && tar -cf moved.tar {files}", cwd=tmp_path
    )
    assert packed.returncode == 0, packed.stderr
    key, asked = host.read("/var/lib/modfleet-agent/web-1/identity.json"), len(control.asked)
    with namespace() as other, debian_redis(other):
        moved = other.run("tar -C / -xf moved.tar && modfleet agent install --name web-1", cwd=tmp_path)
        assert (moved.returncode, moved.stderr) == (0, "")
        assert other.read("/var/lib/modfleet-agent/web-1/identity.json") == key
        assert other.run("stat -c %U /var/lib/modfleet-agent/web-1/identity.json").stdout == "modfleet-agent\n"
        assert other.run("systemctl is-active modfleet-agent@web-1.service").returncode == 0
    assert len(control.asked) == asked
