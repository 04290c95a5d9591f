"""The installation tells the agent where the server logs, and the doctor says what the agent lacks to read it."""

import json

import pytest

from tests.namespace import DebianRedis, namespace


@pytest.fixture
def install(agent, site, control):
    def run(*words):
        options = ["--control", control.url, "--token", control.token(), "--server", site.url, "--name", "n1"]
        return agent("install", *options, "--root", site.root, *words)

    return run


@pytest.fixture
def log(site):
    """The file that the server names."""
    path = site.root / "server.log"
    site.config.write_text(f"{site.config.read_text()}logfile {path}\n")
    site.restart()
    return path


def named(site):
    return {name: value for name, value in site.settings("n1").items() if name.startswith("MODFLEET_SERVER_LOG")}


def test_the_agent_gets_the_path_that_the_server_names(install, site, log):
    done = install()
    assert done.has("found")[0].endswith(f"{site.config}, {log}")
    assert named(site) == {"MODFLEET_SERVER_LOG": str(log)}
    assert install().has("done") == []


def test_a_path_that_the_server_resolves(install, site):
    site.config.write_text(f"{site.config.read_text()}logfile server.log\n")
    site.restart()
    install()
    assert named(site) == {"MODFLEET_SERVER_LOG": f"{site.root}/var/lib/redis/server.log"}


def test_an_agent_of_an_older_version_gets_it_too(install, site, log):
    install()
    path = site.root / "etc/modfleet/agents/n1.env"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "SERVER_LOG" not in line))
    install()
    assert named(site) == {"MODFLEET_SERVER_LOG": str(log)}


@pytest.mark.parametrize("line", ["MODFLEET_SERVER_LOG=/srv/log", "MODFLEET_SERVER_LOG_FILE=/srv/path"])
def test_the_setting_of_a_person_stays(install, site, line):
    install()
    path = site.root / "etc/modfleet/agents/n1.env"
    path.write_text(f"{path.read_text()}{line}\n")
    site.config.write_text(f"{site.config.read_text()}logfile {site.root}/server.log\n")
    site.restart()
    install()
    assert named(site) == dict([line.split("=")])


def test_what_is_not_seen_is_not_written(install, site, log):
    """The file was removed, or the server runs in a container."""
    log.unlink()
    install()
    assert named(site) == {}


def test_a_user_that_may_not_ask(install, site, log):
    site.call("ACL", "SETUSER", "default", "-config")
    install()
    assert named(site) == {}


# --- Debian -----------------------------------------------------------------------------------------------------------

LOG = "/var/log/redis/redis-server.log"


@pytest.fixture
def host(control):
    """An agent next to Debian's redis-server, which logs to its usual file."""
    with namespace() as made:
        server = DebianRedis(made)
        script = f"install --owner=redis --group=adm --mode=660 /dev/null {LOG}"  # as with the unit's UMask=007
        assert made.run(f"{script}; echo 'logfile {LOG}' >> /etc/redis/redis.conf").returncode == 0
        server.start()
        options = (
            f"--control {control.url} --token {control.token()} --server unix://{server.SOCKET} --name web-1 --yes"
        )
        try:
            done = made.run(f"modfleet agent install {options}")
            assert done.returncode == 0, done.stderr
            yield made
        finally:
            server.stop()


def examined(host, as_user, journal=""):
    """What the doctor says about the log: status, message and fix."""
    setting = f"unset MODFLEET_SERVER_LOG; export MODFLEET_SERVER_UNIT={journal}" if journal else ":"
    said = host.run(f"set -a; . /etc/modfleet/agents/web-1.env; {setting}; {as_user} modfleet agent doctor --json")
    (found,) = [each for each in json.loads(said.stdout) if each["check"] == "server_log"]
    return found["status"], found["message"], found["fix"]


AGENT = "setpriv --reuid=modfleet-agent --regid=modfleet-agent"


def test_the_doctor_names_the_group_that_the_agent_lacks(host):
    assert f"MODFLEET_SERVER_LOG={LOG}\n" in host.read("/etc/modfleet/agents/web-1.env")
    assert examined(host, f"{AGENT} --groups=redis") == (
        "warn",
        f"The agent cannot read the server's log {LOG}: Permission denied.",
        "Add the agent's user to the group adm, with `SupplementaryGroups=adm` in the agent's unit.",
    )
    assert examined(host, f"{AGENT} --groups=redis,adm")[0] == "pass"
    host.run("chmod g-rx /var/log/redis")
    assert examined(host, f"{AGENT} --groups=adm")[2] == "setfacl --modify u:modfleet-agent:x /var/log/redis"
    status, _, fix = examined(host, "")
    assert (status, fix) == ("unknown", "`modfleet nodes show web-1` shows what the agent itself finds.")


def test_the_doctor_names_the_group_of_the_journal(host):
    unit, user = "redis-server.service", f"{AGENT} --clear-groups"
    host.run("ln -s /bin/true /opt/programs/journalctl")
    assert examined(host, user, unit)[:2] == (
        "unknown",
        "No journal is visible in /var/log/journal and /run/log/journal.",
    )
    host.run("install -D --mode=640 --group=adm /dev/null /var/log/journal/machine/system.journal")
    assert examined(host, user, unit)[2] == (
        "Add the agent's user to the group systemd-journal, with `SupplementaryGroups=systemd-journal` in the agent's unit."
    )
    assert examined(host, f"{AGENT} --groups=adm", unit)[0] == "pass"
