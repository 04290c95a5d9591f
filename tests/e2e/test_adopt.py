"""`modfleet adopt` beside Debian's redis-server. The agent is the one that `modfleet agent install` sets up: another user than
the server's, in its group, which may neither read the server's memory maps nor write its configuration."""

import json
import re
import time

import pytest

from tests.e2e.test_debian import control, finding, workstation
from tests.fleet import sample
from tests.namespace import namespace
from tests.ports import free_port
from tests.waiting import wait_for

__all__ = ["control", "workstation"]

SOCKET = "/run/redis/redis-server.sock"
FOREIGN = "/usr/lib/acme/greet.so"
MAIN = "/etc/redis/redis.conf"
AGENT = "setpriv --reuid=modfleet-agent --regid=modfleet-agent --groups=redis"
LINES = f"""
unixsocket {SOCKET}
unixsocketperm 770
enable-module-command local
loadmodule {FOREIGN} a
include /usr/lib/modfleet/web-1/*.conf
"""


@pytest.fixture
def host(control, workstation, tmp_path):
    """The server runs greet from a package's path, before Modfleet comes."""
    package = sample(tmp_path, 10000).replace(tmp_path / "greet-1.0.0.zip")
    with namespace() as made:
        made.do(
            f"mkdir -p {FOREIGN.rpartition('/')[0]}; /opt/modfleet/bin/python -c 'import zipfile; "
            f'print(zipfile.ZipFile("{package}").extract("greet.so"))\'; install -m 755 greet.so {FOREIGN}; '
            f"sed -i 's/^port .*/port {free_port()}/' {MAIN}; printf '{LINES}' >> {MAIN}",
            cwd=tmp_path,
        )
        written = float(made.do(f"stat -c %Z {FOREIGN}"))
        assert workstation(f"modfleet push {package}").returncode == 0
        token = re.findall(r"mfj1\S+", workstation("modfleet nodes add web-1").stdout)[0]
        (tmp_path / "token").write_text(token)
        wait_for(lambda: time.time() > written + 6)
        made.do("systemctl enable --now redis-server")
        made.do(
            f"modfleet agent install --control {control.url} --token-file token --server unix://{SOCKET} --name web-1 --yes",
            cwd=tmp_path,
        )
        yield made


def module(control):
    modules = (control.node("web-1")["server_state"] or {}).get("modules", ())
    return next((each for each in modules if each["name"] == "greet"), None)


def loaded(host):
    return host.do(f"redis-cli -s {SOCKET} MODULE LIST")


def test_a_person_changes_one_line_as_root(control, workstation, host):
    pid = host.do("cat /run/units/redis-server.service").strip()
    assert host.run(f"{AGENT} cat /proc/{pid}/maps").returncode != 0
    assert host.run(f"{AGENT} test -w {MAIN}").returncode != 0
    wait_for(lambda: (module(control) or {}).get("sha256"))
    assert (module(control)["obstacle"], module(control)["by_person"]) == ("", True)
    answer = json.loads(workstation("modfleet adopt --json").stdout)
    (rollout,) = answer["rollouts"]
    wait_for(lambda: control.node("web-1")["server_state"]["to_do"])
    said = control.node("web-1")["server_state"]["to_do"]
    found = re.fullmatch(r"Replace the line `(.*)` \((.*)\) by `(.*)`\. The .*", said)
    assert found, said
    former, place, line = found.groups()
    assert (former, place.rpartition(":")[0]) == (f"loadmodule {FOREIGN} a", MAIN)
    host.do(f"sed -i 's|^{former}$|{line}|' {MAIN}")
    assert control.end_of(rollout["uid"])["phase"] == "succeeded"
    wait_for(lambda: module(control)["ours"])
    assert (module(control)["adopted_from"], FOREIGN in loaded(host)) == (FOREIGN, True)
    again = workstation("modfleet adopt")
    assert (again.returncode, "nothing to adopt" in again.stdout.lower()) == (0, True)
    host.do("systemctl restart redis-server")
    assert "/usr/lib/modfleet/web-1/greet/10000/greet.so" in loaded(host)


def test_the_doctor_says_how_the_agent_can_read(control, workstation, host):
    host.do(f"chmod 600 {MAIN}")
    wait_for(lambda: "cannot be read: Permission denied" in (module(control) or {}).get("obstacle", ""))
    assert "`modfleet agent doctor` says how" in workstation("modfleet adopt --dry-run").stdout
    host.do("systemctl restart modfleet-agent@web-1")
    wait_for(lambda: (finding(control, "foreign_modules") or {}).get("status") == "warn")
    assert finding(control, "foreign_modules")["fix"] == f"setfacl --modify u:modfleet-agent:r {MAIN}"
    host.do(f"chmod 640 {MAIN}")  # as CONFIG REWRITE leaves it
    wait_for(lambda: module(control)["obstacle"] == "")


def test_a_file_that_was_replaced_since_the_start(control, host):
    host.do(f"cp {FOREIGN} /tmp/greet.so; install -m 755 /tmp/greet.so {FOREIGN}")
    wait_for(lambda: "has changed since the server's start" in (module(control) or {}).get("obstacle", ""))
    assert module(control)["sha256"] == ""
