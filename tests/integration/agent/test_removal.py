"""A removal that would hurt clients or data is refused, and nothing is changed: on both servers."""

import pytest
import redis

from rollout.agent.operations import aof_rewrite, safe_removal
from rollout.agent.operations.aof_rewrite import rewrite
from rollout.agent.server import call_history
from rollout.agent.server.session import Session
from rollout.messages import Phase, Reason
from tests.integration.agent.conftest import SERVERS, Valkey
from tests.ports import free_port
from tests.waiting import wait_for

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)
AOF_OFF = pytest.mark.parametrize("aof", ["no"])


def state_of(site):
    """What a refused removal must not change: files, lines, and the server."""
    return site.left(), site.include(), site.server.loaded(), site.server.call("INFO", "server")["run_id"]


def refused(site, built, **changes):
    """Remove a loaded module. Return the report, after a check that nothing was changed."""
    before = state_of(site)
    report = site.remove(built, **changes)
    assert (report.phase, state_of(site)) == (Phase.FAILED, before)
    return report


def allow(site, *rules):
    """Let the agent log in as a user with these rights only."""
    site.server.call("ACL", "SETUSER", "agent", "on", ">secret", *rules)
    (site.root / "password").write_text("secret")
    site.environ |= {"MODFLEET_SERVER_USER": "agent", "MODFLEET_SERVER_PASSWORD_FILE": str(site.root / "password")}
    site.restart_agent()


# --- Keys of its types


@pytest.fixture
def keeps(site, built):
    site.install(built("keeps", 1), has_types=True)
    return built("keeps", 1)


@AOF_OFF
@pytest.mark.parametrize("database", [0, 9])
def test_a_key_of_its_type_in_any_database(site, keeps, database):
    with redis.Redis(unix_socket_path=str(site.server.socket), db=database) as client:
        client.mset({f"k{each}": each for each in range(500)})
        client.execute_command("KEEPS.SET", b"\xff\xfe", "7")
    report = refused(site, keeps, has_types=True, even_if_used=True)
    assert report.reason is Reason.DATA_IN_USE
    assert f"Database {database} has a key of the data type modkeeps1" in report.message
    assert "only a restart of the server without it removes it" in report.message


@AOF_OFF
def test_a_key_of_another_modules_type(site, keeps, built):
    site.install(built("types", 1), has_types=True)
    site.server.call("KEEPS.SET", "k", "7")
    assert refused(site, built("types", 1), has_types=True).reason is Reason.EXPORTS_DATA_TYPES
    assert refused(site, keeps, has_types=True, even_if_used=True).reason is Reason.DATA_IN_USE


@AOF_OFF
@pytest.mark.parametrize("scratch", ["off"])
def test_a_key_counts_for_all_modules_if_its_owner_is_not_known(site, keeps, built):
    site.install(built("types", 1), has_types=True)
    site.server.call("KEEPS.SET", "k", "7")
    assert refused(site, built("types", 1), has_types=True).reason is Reason.DATA_IN_USE


@AOF_OFF
def test_without_such_a_key_the_servers_refusal_is_reported(site, keeps):
    site.server.call("SET", "k", "v")
    assert refused(site, keeps, has_types=True).reason is Reason.EXPORTS_DATA_TYPES


@AOF_OFF
def test_too_many_keys_count_as_keys_of_its_type(site, keeps, monkeypatch):
    site.server.call("SET", "k", "v")
    monkeypatch.setattr(safe_removal, "KEYS_SECONDS", 0.0)
    report = refused(site, keeps, has_types=True)
    assert (report.reason, "It is not known" in report.message) == (Reason.DATA_IN_USE, True)


@AOF_OFF
def test_a_missing_right_to_look_at_keys_is_named(site, keeps):
    site.server.call("SET", "k", "v")
    allow(site, "+@all", "-scan", "resetkeys", "%R~*")
    report = refused(site, keeps, has_types=True)
    assert report.reason is Reason.DATA_IN_USE
    assert "ACL SETUSER agent %R~* +select +scan +type" in report.message
    allow(site, "+scan", "resetkeys")
    assert "ACL SETUSER agent %R~* +select +scan +type" in refused(site, keeps, has_types=True).message


# --- Calls


@pytest.fixture
def base(site, built):
    site.install(built("base", 1))
    return built("base", 1)


def test_a_recent_call(site, base):
    with redis.Redis(unix_socket_path=str(site.server.socket), client_name="shop-7") as client:
        for _ in range(3):
            client.execute_command("BASE.ASK")
        report = refused(site, base)
    assert report.reason is Reason.IN_USE
    assert "base.ask 3" in report.message
    assert "Newest clients: shop-7." in report.message
    assert '"even_if_used": true' in report.message


def test_a_recent_call_does_not_matter_if_the_command_says_so(site, base):
    site.server.call("BASE.ASK")
    assert site.remove(base, even_if_used=True).phase is Phase.SUCCEEDED
    assert (site.left(), site.include(), site.server.loaded()) == ([], [], set())


def test_an_agent_that_has_just_started_does_not_know_when_a_call_was(site, base, monkeypatch):
    """The calls are older than the agent's memory: it waits until it has observed the server for long enough."""
    monkeypatch.setattr(call_history, "WINDOW_SECONDS", 1.0)
    monkeypatch.setattr(call_history, "SAMPLE_SECONDS", 0.1)
    site.server.call("BASE.ASK")
    wait_for(lambda: int(site.server.call("INFO", "server")["uptime_in_seconds"]) >= 3)
    site.restart_agent()
    report = refused(site, base)
    assert report.reason is Reason.IN_USE
    assert "it is known at" in report.message

    def known():
        (module,) = [each for each in site.runner.heartbeat(hello=False).facts.modules if each.ours]
        return module.recent_calls == 0

    wait_for(known)
    assert site.remove(base).phase is Phase.SUCCEEDED


def test_the_clients_are_left_out_without_the_right(site, base):
    allow(site, "+@all", "-client|list")
    site.server.call("BASE.ASK")
    report = refused(site, base)
    assert (report.reason, "Newest clients" in report.message) == (Reason.IN_USE, False)


def test_the_heartbeat_has_the_calls(site, base):
    with redis.Redis(unix_socket_path=str(site.server.socket), client_name="shop-7") as client:
        client.execute_command("BASE.ASK")
        (module,) = [each for each in site.runner.heartbeat(hello=False).facts.modules if each.ours]
    assert (module.recent_calls, module.most_called, module.clients) == (1, "base.ask", ("shop-7",))


# --- ACL rules


def test_the_users_whose_rules_name_a_command(site, base):
    site.server.call("ACL", "SETUSER", "bob", "on", "nopass", "-@all", "+base.ask")
    site.server.call("ACL", "SETUSER", "eve", "on", "nopass", "+@all", "-base.ask")
    report = refused(site, base)
    assert report.reason is Reason.ACL_REFERENCES_MODULE
    assert "base.ask of base 1: bob, eve. Remove these rules first" in report.message


# --- Auxiliary data


@AOF_OFF
def test_auxiliary_data_at_a_server_with_persistence(site, base):
    site.server.call("CONFIG", "SET", "save", "3600 1")
    report = refused(site, base, aux_data=True)
    assert (report.reason, "has save points" in report.message) == (Reason.AUX_DATA, True)


@AOF_OFF
def test_auxiliary_data_at_a_server_whose_persistence_is_unknown(site, base):
    allow(site, "+@all", "-config|get")
    assert refused(site, base, aux_data=True).reason is Reason.AUX_DATA


@AOF_OFF
def test_auxiliary_data_at_a_server_that_keeps_nothing(site, base):
    assert site.remove(base, aux_data=True).phase is Phase.SUCCEEDED


@pytest.mark.parametrize("aof", ["yes"])
def test_auxiliary_data_at_a_server_with_an_append_only_file(site, base):
    report = refused(site, base, aux_data=True)
    assert (report.reason, "has an append-only file" in report.message) == (Reason.AUX_DATA, True)


@AOF_OFF
@pytest.mark.parametrize("words", ["a master", "replicas"])
def test_auxiliary_data_in_a_shard(site, base, binary, words):
    other, port = Valkey(site.root / "other", binary=binary, aof="no").start(), free_port()
    master, replica = (other, site.server) if words == "a master" else (site.server, other)
    try:
        master.call("CONFIG", "SET", "port", port)
        replica.call("REPLICAOF", "127.0.0.1", port)
        wait_for(lambda: replica.call("INFO", "replication")["master_link_status"] == "up")
        report = refused(site, base, aux_data=True)
        assert (report.reason, f"has {words}" in report.message) == (Reason.AUX_DATA, True)
    finally:
        other.kill()


@pytest.mark.parametrize("aux_data", [False, None])
def test_no_known_auxiliary_data(site, base, aux_data):
    assert site.remove(base, aux_data=aux_data).phase is Phase.SUCCEEDED


@AOF_OFF
def test_what_another_node_says_does_not_count_if_this_node_knows(site, base):
    site.server.call("CONFIG", "SET", "save", "3600 1")
    said = {"aux_data": True, "aux_data_from": "liar", "has_types": True, "has_types_from": "liar"}
    assert site.remove(base, **said).phase is Phase.SUCCEEDED


@AOF_OFF
def test_another_node_that_says_so_is_named(site, base):
    site.server.call("CONFIG", "SET", "save", "3600 1")
    (site.root / "journal/.scratch.json").unlink()
    report = refused(site, base, aux_data=True, aux_data_from="liar")
    assert report.reason is Reason.AUX_DATA
    assert (
        "Only the scratch servers of liar have shown that: if this is wrong, decommission or revoke" in report.message
    )


# --- The append-only file


@pytest.fixture
def writes(site, built):
    """A module whose commands are in the append-only file."""
    site.install(built("writes", 1))
    site.server.call("WRITES.SET", "k", "v")
    return built("writes", 1)


def test_the_server_starts_with_its_data_after_the_removal(site, writes):
    assert site.remove(writes, even_if_used=True).phase is Phase.SUCCEEDED
    site.server.restart()
    assert (site.server.call("GET", "k"), site.server.loaded()) == ("v", set())


def test_calls_during_the_rewrite_lead_to_another_one(site, writes, monkeypatch):
    """A client calls its commands until the moment of the unload."""
    unload = Session.unload_and_count

    def write_and_unload(session, name):
        site.server.call("WRITES.SET", "k", "newer")
        return unload(session, name)

    monkeypatch.setattr(Session, "unload_and_count", write_and_unload)
    assert site.remove(writes, even_if_used=True).phase is Phase.SUCCEEDED
    site.server.restart()
    assert (site.server.call("GET", "k"), site.server.loaded()) == ("newer", set())


def test_calls_during_the_rewrite_are_use(site, built, monkeypatch):
    site.install(built("writes", 1))

    def rewrite_and_write(operation, session):
        rewrite(operation, session)
        site.server.call("WRITES.SET", "k", "v")

    monkeypatch.setattr(aof_rewrite, "rewrite", rewrite_and_write)
    assert refused(site, built("writes", 1)).reason is Reason.IN_USE


def test_a_rewrite_that_is_not_allowed(site, writes):
    allow(site, "+@all", "-bgrewriteaof", "~*")
    report = refused(site, writes, even_if_used=True)
    assert report.reason is Reason.AOF_REWRITE_FAILED
    assert "ACL SETUSER agent +bgrewriteaof" in report.message


def block_rewrites(site):
    """Put directories where the server creates the files of a rewrite."""
    for number in range(2, 12):
        for name in (f"appendonly.aof.{number}.base.rdb", f"appendonly.aof.{number}.incr.aof"):
            if not (file := site.server.folder / "appendonlydir" / name).exists():
                file.mkdir()


def test_a_rewrite_that_fails(site, writes):
    block_rewrites(site)
    assert refused(site, writes, even_if_used=True).reason is Reason.AOF_REWRITE_FAILED


def test_a_second_rewrite_that_fails_loads_the_module_again(site, writes, monkeypatch):
    unload = Session.unload_and_count

    def write_and_unload(session, name):
        site.server.call("WRITES.SET", "k", "newer")
        block_rewrites(site)
        return unload(session, name)

    monkeypatch.setattr(Session, "unload_and_count", write_and_unload)
    assert refused(site, writes, even_if_used=True).reason is Reason.AOF_REWRITE_FAILED
    site.server.restart()
    assert (site.server.call("GET", "k"), site.server.loaded()) == ("newer", {("writes", 1)})


def test_an_agent_that_dies_during_the_unload_leaves_the_line(site, writes):
    command = site.command(writes, "remove", even_if_used=True)
    site.run_and_die(command, "unload")
    site.server.restart()
    assert (site.server.call("GET", "k"), site.server.loaded()) == ("v", {("writes", 1)})
    site.restart_agent()
    assert site.run(command).phase is Phase.SUCCEEDED
    site.server.restart()
    assert (site.server.call("GET", "k"), site.server.loaded()) == ("v", set())


def test_an_agent_that_dies_after_the_unload_rewrites_when_it_is_repeated(site, writes):
    command = site.command(writes, "remove", even_if_used=True)
    site.run_and_die(command, "unload")
    site.server.call("MODULE", "UNLOAD", "writes")
    site.restart_agent()
    assert site.run(command).phase is Phase.SUCCEEDED
    site.server.restart()
    assert (site.server.call("GET", "k"), site.server.loaded()) == ("v", set())


# --- What refers to it


def test_libraries_of_functions_are_named(site, base):
    code = "#!lua name=shop\nredis.register_function{function_name='f', callback=function() return redis.call('BASE.ASK') end, flags={'no-writes'}}"
    site.server.call("FUNCTION", "LOAD", code)
    report = site.remove(base)
    assert (report.phase, report.message) == (
        Phase.SUCCEEDED,
        "These libraries of functions name its commands: shop.",
    )


def test_options_of_the_module_are_named(site, built):
    site.install(built("sized", 1))
    report = site.remove(built("sized", 1))
    assert (report.phase, report.message) == (
        Phase.SUCCEEDED,
        "Remove its options from the server's configuration: sized.size.",
    )


# --- Another hand owns the lines: it would remove the line, and the next start would fail


def hand_over(site):
    """From now on a person owns the server's configuration."""
    site.environ["MODFLEET_PERSISTENCE"] = "external"
    site.restart_agent()


def asked(site):
    """What the person must do."""
    return site.runner.heartbeat(hello=False).facts.to_do


@AOF_OFF
@pytest.mark.parametrize("scratch", ["require", "off"])
def test_a_line_that_keys_need_is_kept(site, built, scratch):
    """Also if it is not known that the module has data types."""
    site.install(built("keeps", 1))
    site.server.call("KEEPS.SET", "k", "7")
    hand_over(site)
    report = refused(site, built("keeps", 1), even_if_used=True)
    assert (report.reason, asked(site)) == (Reason.DATA_IN_USE, "")


@AOF_OFF
@pytest.mark.parametrize("scratch", ["off"])
def test_unknown_auxiliary_data_keep_the_line(site, base):
    site.server.call("CONFIG", "SET", "save", "3600 1")
    hand_over(site)
    report = refused(site, base)
    assert (report.reason, "may write auxiliary data" in report.message) == (Reason.AUX_DATA, True)
    assert asked(site) == ""


def test_used_commands_and_rules_keep_the_line(site, base):
    hand_over(site)
    site.server.call("BASE.ASK")
    assert refused(site, base).reason is Reason.IN_USE
    site.server.call("ACL", "SETUSER", "bob", "on", "nopass", "-@all", "+base.ask")
    assert refused(site, base, even_if_used=True).reason is Reason.ACL_REFERENCES_MODULE
    assert asked(site) == ""


def test_the_server_of_a_person_starts_with_its_data_after_the_removal(site, writes):
    hand_over(site)
    report = site.remove(writes, even_if_used=True, deadline_seconds=1)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXTERNAL_CONFIGURATION)
    (site.root / "modules/modfleet.conf").write_text("")
    site.server.restart()
    assert (site.server.call("GET", "k"), site.server.loaded()) == ("v", set())
    assert site.remove(writes).phase is Phase.SUCCEEDED
    assert site.left() == []
