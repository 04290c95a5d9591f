"""All files that an installation changes on a host of its own, as root."""

import pytest

from tests.namespace import DebianRedis, debian_redis, namespace

pytestmark = pytest.mark.slow

SOCKET = DebianRedis.SOCKET

NAMES = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
#: useradd writes these.
USERS = {f"/etc/{name}{more}" for name in NAMES for more in ("", "-")} | {"/etc/.pwd.lock"}
OWN = (
    "/etc/modfleet",
    "/etc/systemd/system/modfleet-agent@",
    "/var/lib/modfleet-agent",
)


@pytest.fixture
def host():
    with namespace() as made, debian_redis(made):
        yield made


def changed(host) -> dict[str, str]:
    """Each file below /etc, /var/lib and /var/log and each new one below /usr/lib, with its content's digest."""
    lines = host.run("cd /mnt; find etc var usr -type f -exec sha256sum {} +").stdout.splitlines()
    found = (line.split("  ", 1) for line in lines)
    return {f"/{path}": digest for digest, path in found}


def install(host, control, *words):
    options = ["--control", control.url, "--token", control.token(), "--server", f"unix://{SOCKET}"]
    done = host.run(" ".join(["modfleet agent install --name web-1", *options, *words]))
    assert done.returncode == 0, done.stderr


def server_state(host) -> list[str]:
    """All that an agent could change. Until the server has a user for it, its logins are refused, and counted in ACL LOG."""
    questions = ("ACL LIST", "CONFIG GET '*'", "MODULE LIST", "FUNCTION LIST", "DBSIZE", "CLIENT LIST TYPE replica")
    return [host.run(f"redis-cli -s {SOCKET} {each}").stdout for each in questions]


def foreign(before, after) -> set[str]:
    """The files that are neither Modfleet's own nor lists of users."""
    different = {path for path, _ in before.items() ^ after.items()}
    return {path for path in different if not path.startswith(OWN)} - USERS


def test_an_agent_that_observes_changes_only_its_own_files(host, control):
    server = server_state(host)
    before = changed(host)
    install(host, control, "--observe")
    after = changed(host)
    assert any(path.startswith("/var/lib/modfleet-agent/web-1/") for path in after)
    assert foreign(before, after) == set()
    assert server_state(host) == server


def test_without_yes_neither_does_one_that_loads(host, control):
    before = changed(host)
    install(host, control)
    assert foreign(before, changed(host)) == set()


def test_with_yes_it_changes_the_file_of_the_server_and_keeps_a_copy(host, control):
    before = changed(host)
    install(host, control, "--yes")
    copy = "/etc/redis/redis.conf.before-modfleet-1"
    assert foreign(before, changed(host)) == {"/etc/redis/redis.conf", copy}
    assert changed(host)[copy] == before["/etc/redis/redis.conf"]


def test_root_sends_no_file_of_its_own_to_the_server(host, control):
    """The agent's user can put a link in place of its password, and may control the server."""
    install(host, control, "--yes")
    host.run(f"redis-cli -s {SOCKET} CONFIG SET requirepass x")
    password = "/var/lib/modfleet-agent/web-1/server_password"
    host.run(f"setpriv --reuid=modfleet-agent --regid=modfleet-agent --clear-groups ln -sf /etc/shadow {password}")
    for command in ("install --name web-1 --add restart", "doctor --env-file /etc/modfleet/agents/web-1.env"):
        done = host.run(f"modfleet agent {command}")
        assert done.returncode != 0
        assert "it is a link in a directory of another user" in done.stdout + done.stderr, done
        assert "Traceback" not in done.stderr
