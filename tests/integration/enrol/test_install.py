"""`modfleet agent install` with a real server, in a folder that stands for the host."""

import stat
import subprocess

import pytest
import redis

from rollout.agent.control_plane.identity import read_identity
from rollout.agent.server.sentinels import COUNT
from rollout.agent.settings import settings_from
from rollout.signing import key_id
from tests.integration.enrol.conftest import REDIS
from tests.ports import free_port
from tests.waiting import wait_for

STATE = "var/lib/modfleet-agent/n1"


@pytest.fixture
def install(agent, site, control):
    """Enrols n1; words are added, and a second call needs no token."""

    def run(*words):
        options = ["--control", control.url, "--token", control.token(), "--server", site.url, "--name", "n1"]
        return agent("install", *options, "--root", site.root, *words)

    return run


def test_it_enrols_the_node_and_creates_its_files(install, site, control):
    done = install()
    assert (done.code, done.err) == (0, "")
    identity = read_identity(site.root / STATE / "identity.json")
    assert (identity.node, identity.fetch_hosts) == ("n1", ("s3.example.com",))
    assert identity.control_keys == (control.secret.public,)
    assert control.nodes == {"n1": identity.credentials.secret.public}
    modes = {each: stat.S_IMODE((site.root / each).stat().st_mode) for each in (STATE, f"{STATE}/identity.json")}
    assert modes == {STATE: 0o755, f"{STATE}/identity.json": 0o600}
    assert stat.S_IMODE((site.root / "etc/modfleet/agents/n1.env").stat().st_mode) == 0o600


def test_only_the_public_key_and_a_hash_travel(install, site, control):
    install()
    credentials = read_identity(site.root / STATE / "identity.json").credentials
    sent = repr(control.asked)
    assert credentials.private_key not in sent
    assert credentials.broker_password not in sent
    assert credentials.secret.public in sent


def test_the_agent_reads_its_settings(install, site):
    install()
    settings = settings_from(site.settings("n1"))
    assert (settings.node, settings.server_user) == ("n1", "modfleet-agent")
    assert settings.broker_url == "rediss://node.n1@broker.example.com:6379/0"
    assert (settings.labels, settings.beat_seconds, settings.access) == ({"zone": "a"}, 10, "load")
    assert settings.modules_dir == site.root / STATE / "modules"


def test_a_label_with_a_comma_does_not_become_two(install, site, control):
    control.answer = {"labels": {"zone": "a", "owner": "x,tier=y"}}
    install()
    assert settings_from(site.settings("n1")).labels == {"zone": "a"}


@pytest.mark.parametrize("value", ["a\nMODFLEET_SERVER_URL=unix:///x", "a\u2028b", "$(touch x)\r"])
def test_a_label_with_a_line_break_leaves_settings_that_can_be_read(install, site, control, value):
    control.answer = {"labels": {"zone": "a", "owner": value}}
    install()
    assert settings_from(site.settings("n1")).labels == {"zone": "a"}
    assert install().code == 0


def test_it_prints_what_it_must_not_do_itself(install, site):
    before = site.config.read_text(), site.call("ACL", "LIST")
    done = install()
    assert (site.config.read_text(), site.call("ACL", "LIST")) == before
    user, line, enable, include, start = done.to_copy
    assert site.call(*user.split()) == "OK"
    assert site.as_agent("n1", "MODULE", "LIST") is not None
    site.config.write_text(site.config.read_text() + f"{line}\n{enable}\n{include}\n")
    site.restart()
    assert site.call("CONFIG", "GET", "enable-module-command")[1] == "local"
    assert site.as_agent("n1", "MODULE", "LIST") is not None
    assert include == f"include {site.root}/{STATE}/modules/*.conf"
    assert start.startswith("sh -c 'set -a;")
    assert [line for line in done.out.splitlines() if "next restart" in line]


def test_the_lines_have_one_owner(install, site):
    install("--yes")
    assert settings_from(site.settings("n1")).persistence == "include"
    assert f"include {site.root}/{STATE}/modules/*.conf" in site.config.read_text()
    site.restart()  # until then, CONFIG REWRITE would write `enable-module-command` as it is in the running server
    assert site.as_agent("n1", "CONFIG", "REWRITE") == "OK"
    assert install("--yes").has("done") == []


def test_a_server_that_writes_its_lines_itself_includes_nothing(install, site):
    install("--yes", "--persistence", "rewrite")
    assert settings_from(site.settings("n1")).persistence == "rewrite"
    assert "include" not in site.config.read_text()
    assert site.as_agent("n1", "CONFIG", "REWRITE") == "OK"
    install("--yes")
    assert settings_from(site.settings("n1")).persistence == "rewrite"


def test_a_tool_that_owns_the_configuration_is_left_alone(install, site):
    install("--yes", "--persistence", "external")
    assert settings_from(site.settings("n1")).persistence == "external"
    assert "include" not in site.config.read_text()
    assert "enable-module-command" not in site.config.read_text()
    for words in (("CONFIG", "REWRITE"), ("MODULE", "LOAD", "/nonexistent")):
        assert "has no permissions" in site.call("ACL", "DRYRUN", "modfleet-agent", *words)
    assert install("--yes").has("done") == []


def test_another_owner_is_chosen_later(install, site):
    install("--yes")
    install("--yes", "--persistence", "rewrite")
    assert settings_from(site.settings("n1")).persistence == "rewrite"


@pytest.fixture
def sentinel(site):
    """A Sentinel of the server's own program watches it."""
    port, file = free_port(), site.root / "sentinel.conf"
    site.call("CONFIG", "SET", "port", port)
    file.write_text(f"port {free_port()}\ndir {site.root}\nsentinel monitor m 127.0.0.1 {port} 1\n")
    process = subprocess.Popen([site.binary, file, "--sentinel"], stdout=subprocess.DEVNULL)
    wait_for(lambda: site.call(*COUNT)[1] == 1)
    yield
    process.kill()
    process.wait()


@pytest.mark.usefixtures("sentinel")
def test_beside_a_sentinel_the_server_writes_its_lines(install, site):
    done = install("--yes")
    assert done.has("note") == ["a Sentinel watches the server: MODFLEET_PERSISTENCE is rewrite"]
    assert settings_from(site.settings("n1")).persistence == "rewrite"
    assert "include" not in site.config.read_text()


@pytest.mark.usefixtures("sentinel")
def test_an_include_beside_a_sentinel_is_refused_before_anything_is_written(install, site, control):
    before = site.files()
    done = install("--persistence", "include")
    assert (done.code, "Use --persistence rewrite" in done.err) == (2, True)
    assert (site.files(), control.asked) == (before, [])


def test_a_sentinel_that_came_later_changes_the_owner(install, site, request):
    install("--yes")
    assert settings_from(site.settings("n1")).persistence == "include"
    request.getfixturevalue("sentinel")
    install("--yes")
    assert settings_from(site.settings("n1")).persistence == "rewrite"


@pytest.mark.usefixtures("sentinel")
def test_a_sentinel_is_known_by_its_client_too(install, site):
    site.call("ACL", "SETUSER", "default", "-pubsub")
    install("--yes")
    assert settings_from(site.settings("n1")).persistence == "rewrite"


@pytest.mark.parametrize(("access", "owner"), [("load", "external"), ("observe", "include")])
def test_the_settings_of_an_earlier_release_are_replaced(install, site, access, owner):
    install()
    path = site.root / "etc/modfleet/agents/n1.env"
    kept = [line for line in path.read_text().splitlines() if not line.startswith(("MODFLEET_PERS", "MODFLEET_ACCESS"))]
    path.write_text("\n".join([*kept, "MODFLEET_PERSIST=false", f"MODFLEET_ACCESS={access}"]) + "\n")
    assert install().code == 0
    assert settings_from(site.settings("n1")).persistence == owner
    assert "MODFLEET_PERSIST" not in site.settings("n1")


def test_when_a_person_has_done_it_nothing_is_left_to_do(install, site):
    user, *lines, start = install().to_copy
    site.call(*user.split())
    site.config.write_text(site.config.read_text() + "".join(f"{each}\n" for each in lines))
    again = install()
    assert again.to_copy == [start]
    site.restart()
    again = install()
    assert (again.to_copy, again.has("done")) == ([start], [])


def test_with_yes_it_does_it(install, site):
    before, pid = site.config.read_bytes(), site.call("INFO", "server")["process_id"]
    done = install("--yes")
    assert (done.code, len(done.to_copy)) == (0, 1)
    assert (site.root / "etc/redis/redis.conf.before-modfleet-1").read_bytes() == before
    assert site.call("INFO", "server")["process_id"] == pid
    site.as_agent("n1", "PING")
    site.restart()
    site.as_agent("n1", "MODULE", "LIST")
    assert site.call("CONFIG", "GET", "enable-module-command")[1] == "local"


def test_with_yes_the_line_goes_into_the_file_of_users(install, site):
    users = site.root / "etc/redis/users.acl"
    users.write_text("user default on nopass ~* &* +@all\n")
    site.config.write_text(f"{site.config.read_text()}aclfile {users}\n")
    site.restart()
    assert install("--yes").code == 0
    site.restart()
    site.as_agent("n1", "PING")
    assert "user modfleet-agent" not in site.config.read_text()


@pytest.mark.parametrize("words", [(), ("--yes",), ("--observe",)], ids=["by hand", "yes", "observe"])
def test_a_second_run_changes_nothing_and_needs_no_token(install, agent, site, control, words):
    first = install(*words)
    before, asked = site.files(), len(control.asked)
    second = agent("install", "--root", site.root)
    assert (second.code, second.err, second.has("done")) == (0, "", [])
    assert (site.files(), len(control.asked)) == (before, asked)
    assert second.to_copy == first.to_copy


def test_an_outdated_line_of_the_user_is_to_be_replaced(install, agent, site):
    """The server does not start with two lines of one user."""
    user, line, *_ = install("--observe").to_copy
    assert site.call(*user.split()) == "OK"
    site.config.write_text(f"{site.config.read_text()}{line}\n")
    done = agent("install", "--root", site.root, "--add", "load")
    assert f"replace the line `user modfleet-agent ...` in {site.config} by this one:" in done.out
    user, new, *_ = done.to_copy
    assert site.call(*user.split()) == "OK"
    site.config.write_text(site.config.read_text().replace(line, new))
    site.restart()
    assert site.call("ACL", "DRYRUN", "modfleet-agent", "MODULE", "LOAD", "/x") == "OK"


def test_with_yes_a_file_outside_the_root_stays(agent, site, control, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    before = site.config.read_text()
    options = ["--control", control.url, "--token", control.token(), "--server", site.url, "--name", "n1"]
    done = agent("install", *options, "--root", tmp_path / "elsewhere", "--yes")
    assert done.code == 0
    assert done.has("note") == [f"--yes does not change {site.config}: it is outside --root {tmp_path / 'elsewhere'}"]
    assert site.config.read_text() == before


def test_a_token_that_is_not_needed_is_not_used(install, site, control):
    install()
    asked = len(control.asked)
    again = install()
    assert (again.code, len(control.asked)) == (0, asked)
    assert again.has("note") == [
        (
            f"the token was not used. If the node was revoked, delete {site.root / STATE / 'identity.json'} and run the "
            "command again"
        )
    ]


def refusal_of(site, *words):
    with pytest.raises(redis.ResponseError) as refused:
        site.as_agent("n1", *words)
    return str(refused.value)


def test_an_install_after_an_upgrade_adds_new_rights(install, site):
    user, *_ = install().to_copy
    former = user.replace(" +pubsub|numsub", "")
    assert (former != user, site.call(*former.split())) == (True, "OK")
    install("--yes")
    assert site.as_agent("n1", "PUBSUB", "NUMSUB") == []


def test_the_server_user_may_do_what_the_agent_needs_and_no_more(install, site):
    install("--yes")
    site.restart()
    with pytest.raises(redis.ResponseError, match="Error loading"):
        site.as_agent("n1", "MODULE", "LOAD", "/nonexistent")
    assert site.as_agent("n1", "PUBSUB", "NUMSUB") == []
    assert "disabled" in refusal_of(site, "CLUSTER", "NODES")
    # Valkey 9 knows it, and a server does not start with a line that names an unknown command.
    answer = "unknown subcommand" if site.binary == REDIS else "disabled"
    assert answer in refusal_of(site, "CLUSTER", "GETSLOTMIGRATIONS")
    for words in (("ACL", "LIST"), ("CONFIG", "GET", "port"), ("SCAN", "0"), ("FUNCTION", "LIST"), ("CLIENT", "LIST")):
        site.as_agent("n1", *words)
    for command in ("GET x", "DUMP x", "SHUTDOWN", "ACL SETUSER x", "MODULE LOADEX /x"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            site.as_agent("n1", *command.split())


def test_a_setting_that_a_person_added_stays(install, agent, site):
    install()
    path = site.root / "etc/modfleet/agents/n1.env"
    text = path.read_text() + "# ours\nMODFLEET_OPERATING_SYSTEM='rhel9'\n"
    path.write_text(text)
    assert agent("install", "--root", site.root).code == 0
    assert path.read_text() == text


def test_the_exchange_is_repeated_with_the_same_key_after_a_crash(install, site, control):
    control.failures = [503]
    lost = install()
    assert (lost.code, len(lost.err.splitlines())) == (4, 1)
    first = read_identity(site.root / STATE / "identity.json").credentials
    assert install().code == 0
    assert read_identity(site.root / STATE / "identity.json").credentials == first
    assert control.nodes == {"n1": first.secret.public}


def test_a_pending_node_waits_for_a_person(install, control):
    control.answer = {"identity": "pending"}
    done = install()
    assert done.code == 0
    assert done.to_copy[-1] == f"modfleet nodes accept n1 --key {key_id(control.nodes['n1'])}"


def test_two_servers_of_a_host(agent, site, control):
    options = ["--control", control.url, "--token", control.token(), "--root", site.root]
    assert agent("install", *options, "--server", site.url, "--name", "n1").code == 0
    done = agent("install", *options, "--server", f"unix://{site.socket}.other", "--name", "n1")
    assert done.code == 2
    assert done.err == (
        f"n1 has MODFLEET_SERVER_URL={site.url}, not unix://{site.socket}.other. Leave --server out, choose another "
        f"--name, or run `modfleet agent uninstall n1 --root {site.root}` first.\n"
    )


def test_a_node_that_lost_its_key_joins_again_with_a_new_one(install, agent, site, control):
    install("--yes")
    (site.root / STATE / "identity.json").unlink()
    refused = agent("install", "--root", site.root)
    assert (refused.code, refused.err) == (2, "n1 is not enrolled yet. Give --token.\n")
    former = control.nodes.pop("n1")
    done = install()
    assert done.code == 0
    assert "restart the agent:" in done.has("to do by you")
    assert control.nodes["n1"] != former
    site.as_agent("n1", "PING")


def test_without_a_name_the_node_has_that_of_the_host(agent, site, control, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "web 1")
    options = ["--control", control.url, "--token", control.token(), "--root", site.root]
    assert agent("install", *options, "--server", site.url).code == 0
    site.call("CONFIG", "SET", "port", port := free_port())
    assert agent("install", *options, "--server", f"redis://127.0.0.1:{port}").code == 0
    assert set(control.nodes) == {"web-1", f"web-1-{port}"}
    ambiguous = agent("install", "--root", site.root)
    assert ambiguous.code == 2
    assert ambiguous.err == f"Give the --name of the node: this host has web-1, web-1-{port}.\n"
