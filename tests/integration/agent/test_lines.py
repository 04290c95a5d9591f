"""The line in the include file: after whatever dies, the server starts, with its data and without what broke it.

Each test of `Settling` and below is a row of the table in docs/adr/0009-swaps-and-lines.md.
"""

import errno
import os
import signal
import threading

import pytest

from durable import write_file
from rollout.agent.module_files import include
from rollout.agent.module_files.digests import file_digest
from rollout.messages import Action, Activation, Phase, Reason
from tests.integration.agent.conftest import SERVERS

pytestmark = pytest.mark.slow
BOTH = pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)
AOF_OFF = pytest.mark.parametrize("aof", ["no"])
SETTLE = {"settle_seconds": 0.5}
ORDER = {"load_order": ("base", "needs")}


@pytest.fixture(autouse=True)
def log(site):
    """The agent reads the log, in which a server that crashes writes a report."""
    site.environ["MODFLEET_SERVER_LOG"] = str(site.server.folder / "log")
    site.restart_agent()


def crash(site):
    return site.server.crash


def lines(site):
    """Module and version of each line."""
    return [tuple(line.split("/")[-3:-1]) for line in site.include()]


# --- The order


@BOTH
def test_after_each_upgrade_of_a_pair_the_server_starts_with_both(site, built):
    have = {"base": 1, "needs": 1}
    for name in have:
        assert site.install(built(name, 1), **ORDER).phase is Phase.SUCCEEDED
    for version in (2, 3):
        for name in have:
            assert site.install(built(name, version), **ORDER).phase is Phase.SUCCEEDED
            have[name] = version
            site.server.restart()
            assert site.server.loaded() == set(have.items())


def test_a_line_keeps_its_place_also_without_an_order(site, built):
    """As a control plane of the release before sends it."""
    site.install(built("base", 1))
    site.install(built("needs", 1))
    site.install(built("base", 2))
    assert lines(site) == [("base", "2"), ("needs", "1")]


@BOTH
def test_a_wrong_order_is_put_right(site, built):
    site.install(built("base", 1))
    site.install(built("needs", 1))
    include = site.root / "modules/modfleet.conf"
    include.write_text("\n".join(["loadmodule /opt/x.so", *reversed(site.include())]) + "\n")
    assert lines(site)[1:] == [("needs", "1"), ("base", "1")]
    site.install(built("base", 2), **ORDER)
    assert lines(site)[1:] == [("base", "2"), ("needs", "1")]
    assert site.include()[0] == "loadmodule /opt/x.so"


# --- The swap


@BOTH
def test_a_refused_upgrade_leaves_a_data_type_and_its_keys_intact(site, built):
    site.install(built("keeps", 1), has_types=True)
    site.server.call("KEEPS.SET", "k", "7")
    report = site.install(built("keeps", 2), has_types=True)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXPORTS_DATA_TYPES)
    assert (site.server.call("KEEPS.GET", "k"), lines(site)) == (7, [("keeps", "1")])
    site.server.call("DEL", "k")
    site.server.call("SAVE")
    assert site.server.answers()


def test_the_swap_is_measured(site, built):
    assert site.install(built("greet")).swap_seconds is None
    assert site.install(built("greet", 10001)).swap_seconds > 0


@BOTH
def test_other_arguments_are_a_swap_too(site, built):
    site.install(built("greet"))
    report = site.install(built("greet"), command_line_args="--name x")
    assert (report.phase, report.swap_seconds is None) == (Phase.SUCCEEDED, False)
    assert site.include()[0].endswith("greet.so --name x")
    assert site.install(built("greet"), command_line_args="--name x").reason is Reason.ALREADY_INSTALLED


# --- Settling


def test_success_comes_after_the_settling(site, built):
    report = site.install(built("greet"), **SETTLE)
    assert site.phases()[-3:] == [Phase.PROBING, Phase.SETTLING, Phase.SUCCEEDED]
    assert report.seconds > SETTLE["settle_seconds"]
    assert lines(site) == [("greet", "10000")]


def test_nothing_settles_that_was_not_loaded(site, built):
    site.install(built("greet"), activation=Activation.FILES, settle_seconds=30)
    assert Phase.SETTLING not in site.phases()
    site.install(built("greet"))
    assert site.install(built("greet"), settle_seconds=30).reason is Reason.ALREADY_INSTALLED


def test_a_server_that_is_busy_has_not_crashed(site, built, waits):
    def stop():
        site.server.process.send_signal(signal.SIGSTOP)
        threading.Timer(1.5, site.server.process.send_signal, [signal.SIGCONT]).start()

    report = site.run_and(site.command(built("greet"), **SETTLE), Phase.SETTLING, stop)
    assert report.phase is Phase.SUCCEEDED
    assert report.seconds > 1.5


def test_a_restart_before_the_load_is_no_crash_of_the_module(site, built, monkeypatch):
    site.install(built("greet"))

    def digest_and_restart(path):
        site.server.restart()
        return file_digest(path)

    monkeypatch.setattr("rollout.agent.operations.activate.file_digest", digest_and_restart)
    report = site.install(built("greet", 10001))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SERVER_UNREACHABLE)
    assert (site.server.loaded(), lines(site)) == ({("greet", 10000)}, [("greet", "10000")])


def test_the_deadline_counts_while_it_settles(site, built):
    site.install(built("greet"))
    report = site.install(built("greet", 10001), settle_seconds=30, deadline_seconds=1)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.NODE_DEADLINE)
    assert (site.server.loaded(), lines(site)) == ({("greet", 10000)}, [("greet", "10000")])


def test_a_cancel_ends_the_settling(site, built):
    site.install(built("greet"))
    command = site.command(built("greet", 10001), settle_seconds=30)
    report = site.run_and(command, Phase.SETTLING, lambda: site.runner.give_up(command))
    assert report.phase is Phase.CANCELED
    assert (site.server.loaded(), lines(site)) == ({("greet", 10000)}, [("greet", "10000")])


@BOTH
def test_a_new_module_that_takes_the_server_down_does_not_come_back(site, built):
    report = site.run_and(site.command(built("greet"), **SETTLE), Phase.SETTLING, crash(site))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SERVER_CRASHED)
    assert (site.server.loaded(), site.left()) == (set(), [])


@BOTH
def test_after_an_upgrade_that_takes_the_server_down_the_old_version_is_back(site, built):
    site.install(built("greet"))
    report = site.run_and(site.command(built("greet", 10001), **SETTLE), Phase.SETTLING, crash(site))
    assert report.reason is Reason.SERVER_CRASHED
    assert (site.server.loaded(), lines(site)) == ({("greet", 10000)}, [("greet", "10000")])
    assert site.left() == ["greet", "greet/10000", "greet/10000/greet.so", "greet/10000/module.json"]


@BOTH
def test_after_a_rebuild_that_takes_the_server_down_the_old_files_are_back(site, built, repack):
    site.install(built("greet"))
    report = site.run_and(site.command(repack(built("greet")), **SETTLE), Phase.SETTLING, crash(site))
    assert report.reason is Reason.SERVER_CRASHED
    (module,) = report.inventory.modules
    assert (module.content_sha256, module.loaded) == (built("greet").package.content_sha256, True)
    assert lines(site) == [("greet", "10000")]
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}


def test_a_server_that_stays_down_is_started_without_it(site, built, monkeypatch):
    monkeypatch.setattr("rollout.agent.operations.settle.DOWN_SECONDS", 0.1)
    monkeypatch.setattr("rollout.agent.operations.undo.COMES_BACK_SECONDS", 0.1)
    site.install(built("greet"))
    report = site.run_and(site.command(built("greet", 10001), **SETTLE), Phase.SETTLING, site.server.kill)
    assert report.reason is Reason.SERVER_CRASHED
    site.server.start()
    assert site.server.loaded() == {("greet", 10000)}


@pytest.mark.parametrize("before", [None, 10000])
def test_server_and_agent_die_while_it_settles(site, built, before):
    if before:
        site.install(built("greet"))
    had = {("greet", before)} if before else set()
    command = site.command(built("greet", 10001), **SETTLE)
    site.run_and_die(command, "settling")
    site.server.restart()
    assert site.server.loaded() == had
    site.restart_agent()
    assert site.run(command).phase is Phase.SUCCEEDED
    assert Phase.SETTLING in site.phases()
    assert (site.server.loaded(), lines(site)) == ({("greet", 10001)}, [("greet", "10001")])


def test_an_agent_that_dies_while_it_settles_settles_again(site, built):
    command = site.command(built("greet"), **SETTLE)
    site.run_and_die(command, "settling")
    assert lines(site) == []
    site.restart_agent()
    assert site.run(command).phase is Phase.SUCCEEDED
    assert site.phases() == [Phase.PROBING, Phase.SETTLING, Phase.SUCCEEDED]


# --- A module with data types


@BOTH
@AOF_OFF
def test_a_server_with_keys_of_a_new_type_starts_with_its_data(site, built):
    def make_a_key_and_crash():
        site.server.call("KEEPS.SET", "k", "7")
        site.server.call("SAVE")
        site.server.crash()

    command = site.command(built("keeps", 1), has_types=True, **SETTLE)
    report = site.run_and(command, Phase.SETTLING, make_a_key_and_crash)
    assert report.reason is Reason.SERVER_CRASHED
    site.server.restart()
    assert (site.server.call("KEEPS.GET", "k"), lines(site)) == (7, [("keeps", "1")])


@AOF_OFF
def test_it_starts_also_when_the_agent_dies_with_it(site, built):
    site.run_and_die(site.command(built("keeps", 1), has_types=True, **SETTLE), "settling")
    site.server.call("KEEPS.SET", "k", "7")
    site.server.call("SAVE")
    site.server.restart()
    assert site.server.call("KEEPS.GET", "k") == 7


def test_its_line_and_its_files_stay_while_the_server_is_down(site, built, monkeypatch):
    monkeypatch.setattr("rollout.agent.operations.settle.DOWN_SECONDS", 0.1)
    monkeypatch.setattr("rollout.agent.operations.undo.COMES_BACK_SECONDS", 0.1)
    command = site.command(built("keeps", 1), has_types=True, **SETTLE)
    report = site.run_and(command, Phase.SETTLING, site.server.kill)
    assert report.reason is Reason.SERVER_CRASHED
    assert "not known" in report.message
    assert (lines(site), site.folder(built("keeps", 1)).is_dir()) == ([("keeps", "1")], True)
    site.server.start()


@BOTH
@AOF_OFF
def test_without_any_key_a_type_that_takes_the_server_down_does_not_come_back(site, built):
    command = site.command(built("keeps", 1), has_types=True, **SETTLE)
    report = site.run_and(command, Phase.SETTLING, crash(site))
    assert (report.reason, lines(site)) == (Reason.SERVER_CRASHED, [])
    site.server.restart()
    assert site.server.loaded() == set()


@BOTH
@pytest.mark.parametrize("declared", [True, False])
@AOF_OFF
def test_a_type_that_cannot_be_unloaded_has_its_line(site, built, declared):
    """There may be keys of it from now on."""
    command = site.command(built("keeps", 1), has_types=declared, settle_seconds=30)
    report = site.run_and(command, Phase.SETTLING, lambda: site.runner.give_up(command))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXPORTS_DATA_TYPES)
    site.server.call("KEEPS.SET", "k", "7")
    site.server.call("SAVE")
    site.server.restart()
    assert site.server.call("KEEPS.GET", "k") == 7


def test_a_declared_type_that_is_none_leaves(site, built):
    """A successful UNLOAD proves that there was none."""
    command = site.command(built("greet"), has_types=True, settle_seconds=30)
    report = site.run_and(command, Phase.SETTLING, lambda: site.runner.give_up(command))
    assert report.phase is Phase.CANCELED
    assert (site.server.loaded(), site.include(), site.left()) == (set(), [], [])


# --- A module with write commands


def write(site):
    site.server.call("WRITES.SET", "k", "v")


@BOTH
def test_a_server_whose_aof_has_its_commands_starts_with_its_data(site, built):
    def write_and_crash():
        write(site)
        site.server.crash()

    report = site.run_and(site.command(built("writes", 1), **SETTLE), Phase.SETTLING, write_and_crash)
    assert report.reason is Reason.SERVER_CRASHED
    assert "the AOF may contain writes.set" in report.message
    site.server.restart()
    assert (site.server.call("GET", "k"), lines(site)) == ("v", [("writes", "1")])


@BOTH
def test_once_called_it_stays_also_after_a_cancel(site, built):
    command = site.command(built("writes", 1), settle_seconds=30)

    def write_and_give_up():
        write(site)
        site.runner.give_up(command)

    report = site.run_and(command, Phase.SETTLING, write_and_give_up)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.UNLOAD_REFUSED)
    site.server.restart()
    assert (site.server.call("GET", "k"), site.server.loaded()) == ("v", {("writes", 1)})


@BOTH
def test_never_called_it_leaves(site, built):
    command = site.command(built("writes", 1), settle_seconds=30)
    said = []

    def give_up():
        said.extend(lines(site))
        site.runner.give_up(command)

    assert site.run_and(command, Phase.SETTLING, give_up).phase is Phase.CANCELED
    assert said == [("writes", "1")], "written together with the load"
    assert (site.server.loaded(), site.include(), site.left()) == (set(), [], [])


@BOTH
def test_an_upgrade_goes_back_to_a_version_with_the_same_commands(site, built):
    site.install(built("writes", 1))
    command = site.command(built("writes", 2), settle_seconds=30)

    def write_and_give_up():
        write(site)
        site.runner.give_up(command)

    assert site.run_and(command, Phase.SETTLING, write_and_give_up).phase is Phase.CANCELED
    site.server.restart()
    assert (site.server.call("GET", "k"), site.server.loaded()) == ("v", {("writes", 1)})


@BOTH
@AOF_OFF
def test_without_an_aof_its_line_waits_for_the_settling(site, built):
    command = site.command(built("writes", 1), **SETTLE)
    said = []

    def write_and_look():
        write(site)
        said.extend(lines(site))
        site.server.crash()

    assert site.run_and(command, Phase.SETTLING, write_and_look).reason is Reason.SERVER_CRASHED
    assert (said, lines(site), site.server.loaded()) == ([], [], set())


# --- Removal


@BOTH
@pytest.mark.parametrize("declared", [True, False])
@AOF_OFF
def test_a_refused_removal_leaves_the_line(site, built, declared):
    site.install(built("keeps", 1), has_types=declared)
    before = site.include()
    report = site.remove(built("keeps", 1), has_types=declared)
    assert (report.reason, site.include()) == (Reason.EXPORTS_DATA_TYPES, before)


@AOF_OFF
def test_a_removal_that_dies_before_the_unload_leaves_the_line_of_a_type(site, built):
    site.install(built("keeps", 1), has_types=True)
    site.run_and_die(site.command(built("keeps", 1), Action.REMOVE, has_types=True), "unload")
    site.server.call("KEEPS.SET", "k", "7")
    site.server.call("SAVE")
    site.server.restart()
    assert site.server.call("KEEPS.GET", "k") == 7


def test_a_removal_that_dies_before_the_unload_is_finished(site, built):
    site.install(built("base", 1))
    site.install(built("greet"))
    site.install(built("needs", 1))
    command = site.command(built("greet"), Action.REMOVE)
    site.run_and_die(command, "unload")
    assert lines(site) == [("base", "1"), ("needs", "1")]
    site.server.restart()
    assert site.server.loaded() == {("base", 1), ("needs", 1)}
    site.restart_agent()
    assert lines(site) == [("base", "1"), ("greet", "10000"), ("needs", "1")], "in its place until it is finished"
    assert site.run(command).phase is Phase.SUCCEEDED
    assert (lines(site), site.folder(built("greet")).exists()) == ([("base", "1"), ("needs", "1")], False)


def test_a_removal_that_takes_the_server_down_leaves_the_line(site, built):
    site.install(built("greet"))
    report = site.run_and(site.command(built("greet"), Action.REMOVE), Phase.REMOVING, site.server.kill)
    assert (report.phase, lines(site)) == (Phase.FAILED, [("greet", "10000")])


@AOF_OFF
def test_a_line_that_a_full_disk_has_kept_away_comes_back_with_a_heartbeat(site, built, monkeypatch):
    """The server has refused the unload."""
    site.install(built("timer", 1))
    writes = iter([write_file])

    def fill(path, content, *, mode):
        write = next(writes, None)
        if write is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content, mode=mode)

    monkeypatch.setattr(include, "write_file", fill)
    report = site.remove(built("timer", 1))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.DISK_FULL)
    assert (lines(site), site.server.loaded()) == ([], {("timer", 1)})
    monkeypatch.undo()
    (change,) = site.runner.heartbeat(hello=False).facts.configuration_changes
    assert "Restored lines" in change.message
    assert lines(site) == [("timer", "1")]
    site.server.restart()
    assert site.server.loaded() == {("timer", 1)}
