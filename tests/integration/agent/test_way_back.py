"""After a version has replaced another one: can the former one read what the new one writes, and are its data kept?"""

import io
import json
import shutil
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from rollout.agent.doctor.acl import Extra, Level, acl_rules
from rollout.agent.restart.kept_data import KeptData
from rollout.agent.server.module_keys import first_module_key, some_module_keys, values_of
from rollout.messages import Activation, Phase, Reason, Way, WayBackResult
from tests.integration.agent import shards, test_scratch
from tests.integration.agent.test_restart import ENDS, Supervised, both, in_step, keep, kept, kept_by, node, other
from tests.shards import Machine
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

temporary = test_scratch.temporary  # no scratch server stays behind

__all__ = ["node", "other", "temporary"]

OPEN, CLOSED, UNKNOWN = WayBackResult.OPEN, WayBackResult.CLOSED, WayBackResult.UNKNOWN


def upgraded(node: Supervised, built, former: int, new: int, *, name: str = "keeps", keys: int = 30, **changes):
    """The way back from the new version, after the former one has had so many keys."""
    assert node.restart(built(name, former)).phase is Phase.SUCCEEDED
    if keys:
        keep(node, keys)
    report = node.restart(built(name, new), **changes)
    assert report.phase is Phase.SUCCEEDED, report
    assert node.server.loaded() == [(name, new)]
    return report.way_back


@both
def test_it_is_open(node, built):
    found = upgraded(node, built, 1, 2)
    assert (found.result, found.message, found.former_version, found.tried) == (OPEN, "", 1, 20)


@both
def test_keys_in_several_databases(node, built):
    """Among keys of the server's own types, with names that are no text."""
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    node.server.call_each(("SET", f"own{number}", "text") for number in range(2000))
    with redis.Redis(unix_socket_path=str(node.server.socket), single_connection_client=True) as client:
        for database in (3, 7):
            client.execute_command("SELECT", database)
            client.execute_command("KEEPS.SET", b"\xff\x00key", 1)
    found = node.restart(built("keeps", 2)).way_back
    assert (found.result, found.tried) == (OPEN, 2)


@both
def test_it_is_closed(node, built):
    found = upgraded(node, built, 1, 2000)
    assert (found.result, found.former_version) == (CLOSED, 1)
    assert found.message.startswith(
        "With the former version, a server does not read what the new one has saved (exit code 0)."
    )
    assert "'keeps' that is not terminated by the proper module value EOF marker" in found.message
    assert kept(node) == 30


@both
def test_the_former_version_ends_the_server(node, built):
    found = upgraded(node, built, 999, 2000)
    assert found.result is CLOSED
    assert "(signal 6). It logged: " in found.message


@both
def test_auxiliary_data(node, built):
    """They are written without a key too."""
    assert upgraded(node, built, 1, 2, name="aux", keys=0).result is UNKNOWN
    found = node.restart(built("aux", 2000)).way_back
    assert found.result is CLOSED
    assert "AUX" in found.message


@both
def test_no_keys(node, built):
    found = upgraded(node, built, 1, 2000, keys=0)
    assert (found.result, found.message, found.tried) == (UNKNOWN, "No key of its data types was found.", 0)


@both
def test_a_value_that_is_too_large(node, built, monkeypatch):
    monkeypatch.setattr("rollout.agent.server.module_keys.LARGEST_VALUE", 5)
    found = upgraded(node, built, 1, 2)
    assert (found.result, found.message) == (UNKNOWN, "No value of the data type modkeeps1 could be tried.")


@both
def test_keys_of_another_module(node, built):
    """They say nothing about the module, also if it does not load without the other one."""
    order = ("keeps", "stash")
    assert node.restart(built("keeps", 1), load_order=order).phase is Phase.SUCCEEDED
    assert node.restart(built("stash", 1), load_order=order).phase is Phase.SUCCEEDED
    for name in order:
        other = order[order[0] == name]
        node.server.call("FLUSHALL")
        node.server.call(f"{other}.set", "key", 1)
        report = node.restart(built(name, 2), load_order=order)
        assert report.phase is Phase.SUCCEEDED, report
        assert (report.way_back.result, report.way_back.message) == (UNKNOWN, "No key of its data types was found.")
        node.server.call(f"{name}.set", "own", 1)
        found = node.restart(built(name, 3), load_order=order).way_back
        assert (found.result, found.tried) == (OPEN, 1), found


@both
def test_no_scratch_servers(node, built):
    node.environ["MODFLEET_SCRATCH"] = "off"
    node.restart_agent()
    found = upgraded(node, built, 1, 2, has_types=True)
    assert (found.result, found.message) == (UNKNOWN, "MODFLEET_SCRATCH is off.")


@both
def test_the_files_of_the_former_version_are_deleted(node, built, monkeypatch):
    one = built("keeps", 1)
    assert node.restart(one).phase is Phase.SUCCEEDED
    keep(node, 1)
    report = node.run_and(
        node.command(built("keeps", 2), way=Way.RESTART, settle_seconds=0.1),
        Phase.SETTLING,
        lambda: shutil.rmtree(node.server.modules / "keeps/1"),
    )
    assert report.phase is Phase.SUCCEEDED
    assert (report.way_back.result, "does not exist" in report.way_back.message) == (UNKNOWN, True)


@both
def test_no_time(node, built):
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    keep(node, 1)

    def hurry() -> None:
        node.runner.node.settings = replace(node.runner.node.settings, scratch_seconds=0.02)

    command = node.command(built("keeps", 2), way=Way.RESTART, settle_seconds=0.1)
    report = node.run_and(command, Phase.SETTLING, hurry)
    assert report.phase is Phase.SUCCEEDED
    assert report.way_back.result is UNKNOWN
    assert report.way_back.message


@both
def test_a_trial_that_goes_wrong(node, built, monkeypatch):
    """The operation has succeeded nevertheless."""

    def fail(*_, **__):
        raise RuntimeError("wrong")

    monkeypatch.setattr("rollout.agent.operations.way_back.read_back", fail)
    found = upgraded(node, built, 1, 2)
    assert (found.result, found.message) == (UNKNOWN, "The agent failed: RuntimeError('wrong'). See its log.")


@both
def test_the_same_version_with_other_files(node, built, repack):
    one = built("keeps", 1)
    assert node.restart(one).phase is Phase.SUCCEEDED
    keep(node, 3)
    again = repack(one)
    assert again.package.content_sha256 != one.package.content_sha256
    found = node.restart(again).way_back
    assert (found.result, found.former_version, found.tried) == (OPEN, 1, 3)
    assert found.kept_file
    assert node.restart(again).way_back is None


@both
def test_files_that_an_earlier_operation_has_replaced(node, built, repack):
    """The server had older files of the version in memory. They are deleted, so the way back to them is not known."""
    one = built("keeps", 1)
    assert node.restart(one).phase is Phase.SUCCEEDED
    keep(node, 3)
    again = repack(one)
    assert node.install(again, activation=Activation.FILES).phase is Phase.SUCCEEDED
    found = node.restart(again).way_back
    assert (found.result, found.message) == (UNKNOWN, "The files of the former build are deleted.")


@both
def test_other_arguments(node, built, repack):
    """The server had the same files, because a person has restarted it since they were replaced."""
    one = built("keeps", 1)
    assert node.restart(one).phase is Phase.SUCCEEDED
    again = repack(one)
    assert node.install(again, activation=Activation.FILES).phase is Phase.SUCCEEDED
    node.server.restart()
    report = node.restart(again, args=("more",))
    assert (report.phase, report.way_back) == (Phase.SUCCEEDED, None)
    assert KeptData(node.root / "journal").read() == ()


@both
def test_no_data_types(node, built):
    found = upgraded(node, built, 500, 501, keys=0)
    assert (found.result, found.tried, found.kept_file) == (OPEN, 0, "")


@both
def test_a_version_with_data_types_that_is_loaded_in_the_place_of_one_without(node, built):
    """It was no restart, but the way back is one."""
    assert node.install(built("keeps", 500)).way_back is None
    assert node.install(built("keeps", 501)).way_back is None
    found = node.install(built("keeps", 2)).way_back
    assert (found.result, found.former_version, found.kept_file) == (UNKNOWN, 501, "")


@both
def test_a_rollback_has_no_way_back(node, built):
    assert upgraded(node, built, 1, 2).result is OPEN
    report = node.restart(built("keeps", 1), undoes=2)
    assert (report.phase, report.way_back) == (Phase.SUCCEEDED, None)


@both
@pytest.mark.parametrize("has_rights", [False, True])
def test_rights(node, built, has_rights):
    extras = [Extra.KEYS, Extra.REMOVAL, Extra.OPTIONS, *([Extra.VALUES] if has_rights else [])]
    rules = acl_rules(Level.RESTART, extras)
    with node.server.file.open("a") as file:
        file.write(f"user agent on >secret {rules}\n")
    node.server.restart()
    password = node.root / "password"
    password.write_text("secret")
    password.chmod(0o600)
    node.environ |= {"MODFLEET_SERVER_USER": "agent", "MODFLEET_SERVER_PASSWORD_FILE": str(password)}
    node.restart_agent()
    found = upgraded(node, built, 1, 2)
    assert found.result is (OPEN if has_rights else UNKNOWN), found
    assert has_rights or "ACL SETUSER agent %R~* +select +scan +type +readonly +memory|usage +dump" in found.message


# --- An agent that is killed ------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("kill_at", ["restarting", "probing", "settling", "way back"])
def test_the_agent_is_killed(node, built, kill_at, temporary):
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    keep(node)
    command = node.command(built("keeps", 2000), way=Way.RESTART, settle_seconds=0.1)
    node.run_and_die(command, kill_at)
    node.restart_agent()
    report = node.run(command)
    assert report.phase is Phase.SUCCEEDED, report
    found = report.way_back
    assert (found.result, found.former_version) == (CLOSED, 1)
    assert node.run(command).way_back == found  # from the journal
    assert keys_in(node, found.kept_file, built("keeps", 1)) == 1000
    wait_for(lambda: not list(temporary.iterdir()))


# --- The data from before ---------------------------------------------------------------------------------------------


def keys_in(node: Supervised, file: str, former) -> int:
    """How many keys a server with the former version reads from the file."""
    machine = Machine("former", node.root / "former", node.server.binary)
    machine.modules.mkdir(parents=True)
    shutil.copy(file, machine.folder / "dump.rdb")
    module = node.server.modules / f"keeps/{former.version}/{former.package.module_file}"
    machine.extra = [f"loadmodule {module}"]
    machine.start()
    try:
        return kept_by(machine)
    finally:
        machine.stop()
        shutil.rmtree(machine.folder)


@both
def test_the_data_from_before_are_kept(node, built):
    found = upgraded(node, built, 1, 2000, keys=1000)
    assert found.kept_file == str(node.server.folder / "dump.rdb.before-keeps-2000")
    node.server.call("DEL", *(f"key{number}" for number in range(500)))
    node.server.call("SAVE")
    assert keys_in(node, found.kept_file, built("keeps", 1)) == 1000

    notes = KeptData(node.root / "journal")
    [note] = notes.read()
    assert (note.module_name, note.version, note.rollout) == ("keeps", 2000, "r2")
    notes.drop(note)
    assert (notes.read(), Path(found.kept_file).exists()) == ((), False)


@both
@pytest.mark.parametrize("way", ["command", "external"])
def test_data_that_another_hand_lets_the_server_save(node, built, short_folder, way):
    """The agent sees the new file only after the next process has started."""
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    keep(node)
    words = [sys.executable, "-c", ENDS, str(short_folder / "started"), str(node.server.socket)]
    node.environ |= {"MODFLEET_RESTART": way, "MODFLEET_RESTART_COMMAND": json.dumps(words)}
    node.restart_agent()
    done = []
    command = node.command(built("keeps", 2), way=Way.RESTART)
    thread = threading.Thread(target=lambda: done.append(node.run(command)))
    thread.start()
    if way == "external":
        wait_for(lambda: node.runner.node.todo)
        node.server.restart()
    thread.join()
    assert done[0].phase is Phase.SUCCEEDED, done[0]
    assert keys_in(node, done[0].way_back.kept_file, built("keeps", 1)) == 1000


@both
def test_a_directory_that_the_agent_cannot_write(node, built, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("rollout.agent.restart.kept_data.os.link", refuse)
    found = upgraded(node, built, 1, 2, keys=1000)
    assert found.kept_file == str(node.root / "journal/before-keeps-2.rdb")
    assert keys_in(node, found.kept_file, built("keeps", 1)) == 1000


@both
def test_data_that_the_agent_cannot_keep(node, built, monkeypatch):
    """The upgrade succeeds, and its report says so."""
    monkeypatch.setattr("rollout.agent.restart.kept_data.DISK", 1e15)
    monkeypatch.setattr("rollout.agent.restart.kept_data.os.link", lambda *_, **__: Path("/nonexistent").stat())
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    report = node.restart(built("keeps", 2))
    assert report.phase is Phase.SUCCEEDED
    assert "The data from before the change are not kept: " in report.message
    assert "has no room for a copy." in report.message
    assert report.way_back.kept_file == ""


@both
def test_a_later_restart_replaces_what_is_kept(node, built):
    first = upgraded(node, built, 1, 2).kept_file
    second = node.restart(built("keeps", 3)).way_back.kept_file
    node.runner.heartbeat(hello=False)
    node.runner.node.holds._thread.join()
    assert (Path(first).exists(), Path(second).exists()) == (False, True)


@both
def test_a_full_synchronization_leaves_what_is_kept(node, built, other):
    """A replica replaces its file by that of its master."""
    in_step(node.server, other)
    node.server.call("CONFIG", "REWRITE")
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    report = node.restart(built("keeps", 2))
    assert report.phase is Phase.SUCCEEDED, report
    file = report.way_back.kept_file
    before = Path(file).stat()
    other.call("DEBUG", "CHANGE-REPL-ID")
    node.server.call("DEBUG", "CHANGE-REPL-ID")
    other.call("SET", "key", "value")
    other.call("CLIENT", "KILL", "TYPE", "replica")
    wait_for(lambda: other.info("stats")["sync_full"] >= 2 and node.server.is_in_step(other))
    after = Path(file).stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert (node.server.folder / "dump.rdb").stat().st_ino != after.st_ino


@both
def test_a_failed_upgrade_keeps_the_data(node, built):
    """The way back is closed: the new version stays, and the failure names the file."""
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    keep(node)
    report = node.restart(built("keeps", 2000), commands=("keeps.missing",))
    assert report.phase is Phase.FAILED
    file = str(node.server.folder / "dump.rdb.before-keeps-2000")
    assert f"The data from before are in {file}." in report.message
    assert kept(node) == 1000
    assert keys_in(node, file, built("keeps", 1)) == 1000


@both
@pytest.mark.parametrize("one_way", [False, True])
def test_a_failed_one_way_upgrade_keeps_the_new_version(node, built, one_way):
    """Another server of the shard may have values by now that the former version cannot read."""
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    report = node.restart(built("keeps", 2), commands=("keeps.missing",), one_way=one_way)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PROBE_FAILED), report
    assert node.server.loaded() == [("keeps", 2 if one_way else 1)]
    assert node.server.lines() == [f"keeps/{2 if one_way else 1}/keeps.so"]


@both
def test_a_replica_in_a_cluster(site, built, short_folder):
    """It redirects what asks for a key to its master, unless it is allowed to answer itself."""
    with zipfile.ZipFile(io.BytesIO(built("keeps", 1).blob)) as archive:
        module = archive.extract("keeps.so", short_folder)
    Path(module).chmod(0o755)
    with shards.cluster_of(site) as cluster:
        for each in (cluster.first, cluster.replica):
            each.call("MODULE", "LOAD", module)
        cluster.first.call("KEEPS.SET", "b", 1)  # in a slot of the first master
        wait_for(lambda: cluster.replica.call("DBSIZE") == 1)
        server = shards.at(site, cluster.replica).runner.node.server
        with server.session(encoding_errors="surrogateescape") as session:
            first = first_module_key(session, 5.0, besides=(), before_step=lambda: None)
            assert first
            assert first.type == "modkeeps1"
            found = some_module_keys(session, 5.0)
            assert [each.name for each in found["modkeeps1"]] == ["b"]
        with server.session(encoding_errors="surrogateescape") as session:
            assert len(values_of(session, found["modkeeps1"], 5.0, most_bytes=1000)) == 1
