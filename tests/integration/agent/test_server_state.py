"""What a heartbeat says of its server: Debian's Redis and the Valkey of the wheel."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from redis.exceptions import ResponseError

from rollout.agent.node.readings import Readings
from rollout.agent.operations.runner import Runner
from rollout.agent.server.call_history import CallHistory
from rollout.agent.server.call_outcomes import CallOutcomes
from rollout.agent.server.observation import Observer, is_bundled
from rollout.agent.server.session import RefusedError
from rollout.agent.settings import settings_from
from rollout.messages import Heartbeat, ServerProblem, from_json, to_json
from tests.integration.agent.conftest import SERVERS, Valkey
from tests.ports import free_port
from tests.waiting import wait_for

both = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])


def state_of(site):
    heartbeat = site.runner.heartbeat(hello=False)
    assert from_json(Heartbeat, to_json(heartbeat)) == heartbeat
    return heartbeat.facts


def with_settings(site, **changes):
    site.environ |= changes
    site.runner = Runner(settings_from(site.environ))


@contextmanager
def another(site):
    server = Valkey(site.root / "other", binary=site.server.binary)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@both
def test_it_works(site):
    state = state_of(site)
    assert (state.problem, state.message, state.role, state.loading, state.async_loading) == (
        "",
        "",
        "master",
        False,
        False,
    )
    assert state.run_id == site.server.call("INFO", "server")["run_id"]
    assert (state.aof_enabled, state.aof_last_write_status, state.rdb_last_bgsave_status) == (True, "ok", "ok")
    assert (state.save_points, state.enable_module_command) == ("", "local")
    assert (state.cluster_enabled, state.cluster_state, state.migrating_slots) == (False, "", None)
    assert state.used_memory > 100_000
    assert (state.max_memory, state.replicas, state.replica_count) == (0, (), 0)
    assert (state.unexpected_error_replies, state.include_seen) == (0, None)
    assert state.uptime_seconds >= 0


@both
def test_ours_and_foreign_modules(site, built):
    site.install(built("greet"))
    foreign = site.root / "foreign.so"
    foreign.write_bytes((site.folder(built("greet")) / "greet.so").read_bytes())
    site.remove(built("greet"))
    foreign.chmod(0o755)
    site.server.call("MODULE", "LOAD", str(foreign), "some", "words")
    state = state_of(site)
    (module,) = [each for each in state.modules if each.name == "greet"]
    assert (module.ours, module.path, module.args, module.version) == (False, str(foreign), "some words", 10000)
    assert state.module_count == len(state.modules)
    site.server.call("MODULE", "UNLOAD", "greet")
    site.install(built("greet"))
    assert [each.ours for each in state_of(site).modules if each.name == "greet"] == [True]


@both
def test_a_server_that_was_stopped_and_is_back(site):
    before = state_of(site)
    profile = site.runner.heartbeat(hello=False).profile
    site.server.kill()
    away = state_of(site)
    assert away.problem == ServerProblem.SERVER_UNREACHABLE
    assert str(site.server.socket) in away.message
    assert (away.run_id, away.role, away.used_memory, away.loading) == ("", "", None, None)
    # A restart is no change of the profile: each change is an event, and a node with many changes must keep its role.
    assert profile.role == "master"
    assert site.runner.heartbeat(hello=False).profile == profile
    site.server.start()
    back = state_of(site)
    assert (back.problem, back.run_id != before.run_id) == ("", True)


@both
def test_a_replica_and_its_master(site):
    with another(site) as other:
        site.server.call("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        port = free_port()
        site.server.call("CONFIG", "SET", "port", str(port))
        other.call("CONFIG", "SET", "port", str(free_port()))
        other.call("REPLICAOF", "127.0.0.1", str(port))
        (replica,) = wait_for(lambda: [each for each in state_of(site).replicas if each.state == "online"])
        assert replica.address.startswith("127.0.0.1:") or replica.address.startswith("::1:")
        assert replica.lag_bytes is not None
        with_settings(site, MODFLEET_SERVER_URL=other.url)
        state = wait_for(lambda: (found := state_of(site)).link_status == "up" and found)
        assert (state.role, state.master, state.replicas) == ("replica", f"127.0.0.1:{port}", ())


@both
def test_a_server_that_is_loading(site):
    site.server.call("SET", "key", "x")
    site.server.kill()
    data = site.server.folder / "appendonlydir"
    assert data.is_dir()
    with (data / next(each.name for each in data.iterdir() if each.name.endswith(".incr.aof"))).open("ab") as file:
        entry = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\nabcd\r\n"
        file.write(entry * 3_000_000)
    server = replace(site.server, process=None)
    thread = threading.Thread(target=server.start)
    thread.start()
    try:
        state = wait_for(lambda: (found := state_of(site)).problem == ServerProblem.SERVER_LOADING and found)
        assert (state.message, state.modules) == ("The server is loading its data.", ())
    finally:
        thread.join()
        site.server.process = server.process
    assert state_of(site).problem == ""


def test_a_server_that_is_silent_once_is_busy(site, monkeypatch):
    before = state_of(site)
    server = site.runner.node.server
    monkeypatch.setattr(server, "session", partial(server.session, 0.2))
    site.server.process.send_signal(19)
    try:
        assert state_of(site) == before
        state = state_of(site)
        assert (state.problem, state.run_id) == (ServerProblem.SERVER_SILENT, before.run_id)
    finally:
        site.server.process.send_signal(18)
    assert state_of(site).problem == ""


def test_an_old_reading_does_not_pass_for_a_new_one(site, monkeypatch):
    """A module was loaded after the last reading. The server is silent then, so the heartbeat has that reading, and its number."""
    node = site.runner.node
    before = node.heartbeat(hello=False).inventory
    late, facts = node._readings.begin(), node._readings.facts
    with_operation = node.inventory()
    node._readings.keep(late, replace(facts, run_id="older"))  # another thread has read this before, and is late
    server = node.server
    monkeypatch.setattr(server, "session", partial(server.session, 0.2))
    site.server.process.send_signal(19)
    try:
        after = node.heartbeat(hello=False)
    finally:
        site.server.process.send_signal(18)
    assert before.counter < after.inventory.counter == with_operation.counter
    assert node._readings.facts.run_id == facts.run_id


def test_an_agent_that_starts_beside_a_silent_server_does_not_say_that_it_is_empty(site, monkeypatch):
    node = site.runner.node
    node._readings, node._is_silent = Readings(), False
    monkeypatch.setattr(node.server, "session", partial(node.server.session, 0.2))
    site.server.process.send_signal(19)
    try:
        assert node.heartbeat(hello=True).facts.problem == ServerProblem.SERVER_SILENT
    finally:
        site.server.process.send_signal(18)


@both
def test_what_the_user_may_not_read_is_not_known(site):
    rights = ["-@all", "+ping", "+info", "+module|list"]
    site.server.call("ACL", "SETUSER", "agent", "on", ">p", *rights)
    (site.root / "password").write_text("p")
    with_settings(site, MODFLEET_SERVER_USER="agent", MODFLEET_SERVER_PASSWORD_FILE=str(site.root / "password"))
    for _ in range(3):
        state = state_of(site)
    assert (state.problem, state.role) == ("", "master")
    assert (state.save_points, state.enable_module_command) == (None, "")
    refused = site.server.call("ACL", "LOG")
    assert state.sentinels is None
    # CONFIG GET and PUBSUB NUMSUB, each once.
    assert sum(each["count"] if isinstance(each, dict) else each[1] for each in refused) == 2


@both
@pytest.mark.parametrize(
    ("rights", "password", "words"),
    [(["-@all", "+ping"], "p", "no permissions"), (["+@all"], "wrong", "it refuses the user agent or its password.")],
    ids=["no rights", "wrong password"],
)
def test_a_server_that_refuses_the_agent(site, rights, password, words):
    site.server.call("ACL", "SETUSER", "agent", "on", ">p", *rights)
    (site.root / "password").write_text(password)
    with_settings(site, MODFLEET_SERVER_USER="agent", MODFLEET_SERVER_PASSWORD_FILE=str(site.root / "password"))
    state = state_of(site)
    assert state.problem == ServerProblem.SERVER_REFUSES
    assert words in state.message


def test_a_password_file_that_cannot_be_read(site):
    with_settings(site, MODFLEET_SERVER_PASSWORD_FILE="/nonexistent/password")
    state = state_of(site)
    assert state.problem == ServerProblem.SERVER_REFUSES
    assert state.message.endswith(": /nonexistent/password cannot be read: No such file or directory.")


class OldSession:
    """Answers as Redis 6.2.14 does: it takes one section of INFO."""

    def __init__(self, version):
        self.version, self.called = version, []

    def info(self, *sections):
        self.called.append(sections)
        if len(sections) > 1 and self.version < "7":
            raise RefusedError(ResponseError("ERR syntax error"))
        return {"redis_version": self.version, "run_id": "r", "role": "master"}

    def modules(self):
        raise AssertionError("an old server is asked for nothing more")


@pytest.mark.parametrize("version", ["6.2.14", "7", "", "banana"])
def test_an_old_server_is_refused(version):
    session: Any = OldSession(version)
    _, state, modules = Observer(lambda _: False, CallHistory(), CallOutcomes()).observe(session)
    assert (state.problem, modules) == (ServerProblem.SERVER_TOO_OLD, ())
    assert "Redis 7.0+" in state.message


@both
def test_a_cluster(site):
    site.server.kill()
    with (site.root / "modules/modfleet.conf").open("a") as file:
        file.write(f"cluster-enabled yes\ncluster-port {free_port()}\n")
    server = site.server
    server.start()
    server.call("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    state = wait_for(lambda: (found := state_of(site)).cluster_state == "ok" and found)
    assert (state.cluster_enabled, state.migrating_slots) == (True, 0)


def test_its_size(site):
    assert len(json.dumps(to_json(site.runner.heartbeat(hello=True)))) < 4000


@both
def test_the_version_of_redis_that_counts(site):
    info = site.server.call("INFO", "server")
    assert site.runner.heartbeat(hello=False).profile.redis_version == info["redis_version"]


@both
def test_modules_of_the_server_are_bundled_and_others_are_not(site, built):
    """Valkey 9.1 has its Lua engine built in; a person has loaded a module from a directory of his own."""
    site.install(built("base", 1))
    file = site.root / "mine.so"
    file.write_bytes(next(site.folder(built("base", 1)).glob("*.so")).read_bytes())
    site.remove(built("base", 1))
    file.chmod(0o755)
    site.server.call("MODULE", "LOAD", str(file))
    found = {each.name: (each.ours, each.bundled) for each in state_of(site).modules}
    assert found.pop("base") == (False, False)
    assert all(each == (False, True) for each in found.values())


@pytest.mark.parametrize(
    ("path", "bundled"),
    [
        ("", True),
        ("lua", True),
        ("/usr/lib/valkey/libjson.so", True),
        ("/usr/local/lib/redis/modules/redisbloom.so", True),
        ("/opt/redis-stack/lib/rejson.so", True),
        ("/usr/lib/modfleet/n1/greet/1/greet.so", False),
        ("/usr/lib/redis-mine/x.so", False),
        ("/opt/redis/modules/x.so", False),
    ],
)
def test_where_the_modules_of_servers_are(path, bundled):
    assert is_bundled(path) is bundled
