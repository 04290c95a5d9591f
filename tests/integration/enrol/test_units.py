"""The units of the agent and of the server, on a host that only notes what systemd would do."""

from pathlib import Path

import pytest

from modfleet.enrol import join_token
from modfleet.enrol.host import Host
from modfleet.enrol.install import install
from modfleet.enrol.layout import UNIT
from modfleet.enrol.rights import RESTART
from modfleet.enrol.uninstall import uninstall
from modfleet.enrol.wishes import Wishes
from modfleet.failure import CommandError, UsageError
from rollout.signing import key_id
from tests.ports import free_port


class Noting(Host):
    """Has systemd, which runs nothing."""

    has_units = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.called: list[str] = []
        self.running: set[str] = set()

    def create_user(self, name):
        self.called.append(f"useradd {name}")
        return True

    def reload_units(self):
        self.called.append("daemon-reload")

    def start(self, unit, *, again):
        is_new = unit not in self.running
        if is_new or again:
            self.called.append(f"start {unit}")
        self.running.add(unit)
        return is_new or again

    def stop(self, unit):
        known = unit in self.running
        self.running.discard(unit)
        return known


@pytest.fixture
def host(redis_site):
    return Noting(redis_site.root)


@pytest.fixture(autouse=True)
def _installed_in_opt(monkeypatch):
    monkeypatch.setattr("sys.prefix", "/opt/modfleet")
    monkeypatch.setattr("sys.executable", "/opt/modfleet/bin/python")
    monkeypatch.setattr("modfleet.enrol.install.PAUSE_SECONDS", 0.01)


@pytest.fixture
def wishes(control, redis_site):
    def make(**more):
        token = join_token.parsed(control.token())
        given = {"control": control.url, "server": redis_site.url, "token": token, "name": "n1"}
        return Wishes(**(given | more))

    return make


def test_it_starts_the_agent_and_waits_for_its_first_heartbeat(host, wishes, control):
    control.phases = ["pending", "pending", "online"]
    said: list[str] = []
    install(wishes(), host, said.append)
    assert "start modfleet-agent@n1.service" in host.called
    assert said[-1] == "done          the control plane received the first heartbeat: n1 is online"
    assert len(control.posted) == 3
    assert len({each["public_key"] for each in control.posted}) == 1


def test_it_waits_until_the_agent_has_examined_the_host(host, wishes, control):
    control.phases = ["pending", "degraded: not_examined", "degraded: not_examined", "online"]
    said: list[str] = []
    install(wishes(), host, said.append)
    assert said[-1] == "done          the control plane received the first heartbeat: n1 is online"
    assert len(control.posted) == 4


@pytest.mark.parametrize("reason", ["server_too_old", "not_examined"])
def test_a_degraded_node_is_named_with_the_reason(host, wishes, control, reason):
    control.phases = [f"degraded: {reason}"]
    said: list[str] = []
    install(wishes(wait_seconds=0.05), host, said.append)
    assert said[-3:] == [
        f"note          It is {reason}.",
        "to do by you  check the host:",
        "    modfleet agent doctor --env-file /etc/modfleet/agents/n1.env",
    ]


@pytest.mark.parametrize(("output", "unit"), [("socket:[1]", "redis-server.service"), ("/dev/null", None)])
def test_the_agent_reads_the_journal_of_a_unit_that_logs_there(host, wishes, redis_site, tmp_path, output, unit):
    process = tmp_path / f"proc/{redis_site.call('INFO', 'server')['process_id']}"
    (process / "fd").mkdir(parents=True)
    (process / "fd/1").symlink_to(output)
    (process / "cgroup").write_text("0::/system.slice/redis-server.service\n")
    install(wishes(), host, print, tmp_path)
    assert redis_site.settings("n1").get("MODFLEET_SERVER_UNIT") == unit


def test_a_node_that_waits_for_a_person_is_not_waited_for(host, wishes, control):
    control.answer = {"phase": "pending", "identity": "pending"}
    said: list[str] = []
    install(wishes(), host, said.append)
    (posted,) = control.posted
    assert said[-1] == f"    modfleet nodes accept n1 --key {key_id(posted['public_key'])}"


def test_a_heartbeat_that_does_not_come_is_a_sentence(host, wishes, control):
    control.phases = ["pending"]
    with pytest.raises(CommandError, match=r"No heartbeat arrived within 0.05 s. `journalctl -u modfleet-agent@n1"):
        install(wishes(wait_seconds=0.05), host, print)


def test_the_unit_runs_this_installation(host, wishes, monkeypatch):
    monkeypatch.setattr("sys.executable", "/srv/modfleet/bin/python")
    install(wishes(), host, print)
    assert "ExecStart=/srv/modfleet/bin/celery -A rollout.agent" in host.path(UNIT).read_text()


def test_a_unit_that_could_not_see_the_installation_is_refused(host, wishes, monkeypatch, control):
    monkeypatch.setattr("sys.executable", "/home/ada/venv/bin/python")
    with pytest.raises(UsageError, match=r"cannot see /home/ada/venv/bin/celery. Install Modfleet into /opt/modfleet"):
        install(wishes(), host, print)
    assert control.asked == []


def test_an_installation_that_the_agent_could_not_use_is_refused(host, wishes, monkeypatch, control, redis_site):
    (redis_site.root / "opt").mkdir(mode=0o700)
    monkeypatch.setattr("sys.executable", str(redis_site.root / "opt/python"))
    monkeypatch.setattr("modfleet.enrol.wishes.HIDDEN", ())
    with pytest.raises(UsageError, match=r"user cannot use \S+/opt. Run `chmod -R a\+rX"):
        install(wishes(), host, print)
    assert control.asked == []


def test_a_second_run_starts_nothing_again(host, wishes):
    install(wishes(), host, print)
    host.called.clear()
    said: list[str] = []
    install(wishes(), host, said.append)
    assert not [each for each in host.called if each.startswith(("start", "daemon"))]
    assert not [each for each in said if each.startswith("done") and "user modfleet-agent" not in each]


def test_the_agent_gets_the_group_of_the_socket(host, wishes, redis_site):
    install(wishes(), host, print)
    drop_in = host.path("/etc/systemd/system/modfleet-agent@n1.service.d/server.conf").read_text()
    assert f"SupplementaryGroups={redis_site.socket.group()}" in drop_in


def test_a_socket_that_only_the_server_may_use(host, wishes, redis_site):
    redis_site.socket.chmod(0o700)
    said: list[str] = []
    install(wishes(), host, said.append)
    assert "    unixsocketperm 770" in said


def test_agents_of_an_older_version_keep_their_url(host, wishes):
    """Their unit read it from a file, and the new unit does not."""
    host.write(UNIT, b"[Service]\nLoadCredential=broker_url:/etc/modfleet/agents/%i.broker_url\n", mode=0o644)
    host.write("/etc/modfleet/agents/old.env", b"MODFLEET_SERVER_URL=redis://127.0.0.1:1\n", mode=0o600)
    host.write("/etc/modfleet/agents/old.broker_url", b"redis://node.old:secret@broker/0\n", mode=0o600)
    install(wishes(), host, print)
    drop_in = host.path("/etc/systemd/system/modfleet-agent@old.service.d/broker_url.conf").read_text()
    assert "LoadCredential=broker_url:/etc/modfleet/agents/old.broker_url\n" in drop_in


def test_an_agent_of_an_older_version_joins_and_keeps_its_settings(host, wishes, redis_site):
    text = f"MODFLEET_SERVER_URL={redis_site.url}\nMODFLEET_CONTROL_URL=http://127.0.0.1:1\nMODFLEET_LABELS=zone=b\n"
    host.write("/etc/modfleet/agents/n1.env", text.encode(), mode=0o600)
    host.write("/etc/modfleet/agents/n1.broker_url", b"redis://node.n1:secret@broker/0\n", mode=0o600)
    host.write(UNIT, b"old\n", mode=0o644)
    install(wishes(), host, print)
    settings = redis_site.settings("n1")
    assert settings["MODFLEET_IDENTITY_FILE"].endswith("n1/identity.json")
    assert "MODFLEET_SERVER_USER" not in settings
    assert settings["MODFLEET_MODULES_DIR"].endswith("/var/lib/modfleet-agent/n1/modules")
    assert not host.path("/etc/modfleet/agents/n1.broker_url").exists()


def test_uninstall_removes_the_unit_with_the_last_node(host, wishes, redis_site):
    install(wishes(), host, print)
    redis_site.call("CONFIG", "SET", "port", port := free_port())
    install(wishes(name="n2", server=f"redis://127.0.0.1:{port}"), host, print)
    uninstall("n1", host, print, purge=False, admin=None)
    assert host.path(UNIT).exists()
    uninstall("n2", host, print, purge=False, admin=None)
    assert not list(host.path("/etc/systemd/system").glob("modfleet-agent*"))
    assert host.running == set()


def test_a_server_has_one_agent(host, wishes, control, redis_site):
    install(wishes(), host, print)
    asked = len(control.asked)
    with pytest.raises(UsageError, match=f"{redis_site.url} has the agent n1 already"):
        install(wishes(name="n2"), host, print)
    assert len(control.asked) == asked


@pytest.mark.parametrize("name", ["server_password", "journal"])
def test_root_follows_no_link_of_the_agent(host, wishes, tmp_path, name):
    """The directory belongs to the agent's user, who could lead root to a file of others."""
    install(wishes(), host, print)
    (tmp_path / "secret").mkdir(mode=0o700)
    (tmp_path / "secret/file").write_text("of root")
    path = host.path(f"/var/lib/modfleet-agent/n1/{name}")
    path.unlink() if path.is_file() else path.rmdir()
    path.symlink_to(tmp_path / "secret/file" if name == "server_password" else tmp_path / "secret")
    with pytest.raises(CommandError, match=f"{name} cannot be used: it is a link"):
        install(wishes(), host, print)
    assert path.is_symlink()


def test_the_agent_may_start_the_unit_of_its_server_and_no_other(host, wishes, redis_site, tmp_path):
    process = tmp_path / f"proc/{redis_site.call('INFO', 'server')['process_id']}"
    process.mkdir(parents=True)
    (process / "cgroup").write_text("0::/system.slice/redis-server.service\n")
    said: list[str] = []
    install(wishes(add=(RESTART,)), host, said.append, tmp_path)
    assert "polkit" not in "".join(said)
    settings = host.path("/etc/modfleet/agents/n1.env")
    settings.write_text(settings.read_text() + "MODFLEET_RESTART=systemd\n")
    install(wishes(), host, said.append, tmp_path)
    assert (
        "to do by you  let the agent start redis-server.service: put this into /etc/polkit-1/rules.d/50-modfleet-n1.rules:"
        in said
    )
    rule = said[said.index(next(each for each in said if "50-modfleet-n1.rules" in each)) + 1]
    assert 'action.lookup("unit") == "redis-server.service"' in rule
    assert 'action.lookup("verb") == "start" && subject.user == "modfleet-agent"' in rule
