"""Facts that another hand changes while an operation runs: statistics, the append-only file, rights, the role.

After each, the server starts with its data, and the report is true.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rollout.agent.server.session import Session
from rollout.messages import Phase, Reason
from tests.integration.agent.conftest import SERVERS
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)]


@pytest.fixture
def writes(built):
    return built("writes", 1)


def write(site):
    site.server.call("WRITES.SET", "k", "v")


def reset(site):
    site.server.call("CONFIG", "RESETSTAT")


def starts_with_its_data(site):
    site.server.restart()
    return site.server.call("GET", "k") == "v"


# --- CONFIG RESETSTAT


def test_an_undo_does_not_trust_calls_that_were_reset(site, writes):
    command = site.command(writes, settle_seconds=30)

    def write_reset_and_give_up():
        write(site)
        reset(site)
        site.runner.give_up(command)

    report = site.run_and(command, Phase.SETTLING, write_reset_and_give_up)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.UNLOAD_REFUSED)
    assert starts_with_its_data(site)


def test_an_undo_sees_a_call_until_its_unload(site, writes, monkeypatch):
    """The first call comes after it has looked at the calls."""
    unload = Session.unload_and_count

    def write_and_unload(session, name):
        write(site)
        return unload(session, name)

    monkeypatch.setattr(Session, "unload_and_count", write_and_unload)
    command = site.command(writes, settle_seconds=30)
    report = site.run_and(command, Phase.SETTLING, lambda: site.runner.give_up(command))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.UNLOAD_REFUSED)
    assert site.server.loaded() == {("writes", 1)}
    assert starts_with_its_data(site)


def test_a_removal_does_not_trust_calls_that_were_reset(site, writes, monkeypatch):
    """The commands were called after the append-only file was rewritten."""
    site.install(writes)
    unload = Session.unload_and_count

    def write_reset_and_unload(session, name):
        write(site)
        reset(site)
        return unload(session, name)

    monkeypatch.setattr(Session, "unload_and_count", write_reset_and_unload)
    assert site.remove(writes, even_if_used=True).phase is Phase.SUCCEEDED
    assert starts_with_its_data(site)


# --- The append-only file is switched on


@pytest.mark.parametrize("aof", ["no"])
def test_an_append_only_file_that_is_switched_on_needs_the_line(site, writes):
    command = site.command(writes, settle_seconds=30)
    with ThreadPoolExecutor() as pool:
        work = pool.submit(site.run, command)
        wait_for(lambda: Phase.SETTLING in site.phases())
        assert site.include() == []
        site.server.switch_aof_on()
        write(site)
        wait_for(site.include)
        assert starts_with_its_data(site)
        report = site.runner.cancel(command, report=site.said.append)
        assert report == work.result()
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.UNLOAD_REFUSED)
    assert starts_with_its_data(site)


# --- Rights


@pytest.mark.parametrize("right", ["module|unload", "module|list", "info"])
@pytest.mark.parametrize("former", [None, 10000])
def test_files_that_the_server_has_loaded_stay(site, built, right, former):
    """CONFIG REWRITE by another hand writes their line."""
    if former:
        site.install(built("greet", former))
    command = site.command(built("greet", 10001), commands=("greet.nothing",))

    def take_away():
        site.server.call("ACL", "SETUSER", "default", f"-{right}")

    report = site.run_and(command, Phase.PROBING, take_away)
    assert (report.phase, "could not be restored" in report.message) == (Phase.FAILED, True)
    assert (site.folder(built("greet", 10001)) / "greet.so").is_file()
    site.server.restart()  # the rights are back
    assert site.server.loaded() == ({("greet", former)} if former else set())
    assert site.run(replace(command, attempt=2, commands=("greet.hello",))).phase is Phase.SUCCEEDED
    assert site.server.loaded() == {("greet", 10001)}


def test_files_of_a_version_that_was_loaded_again_stay(site, built, monkeypatch):
    """The undo has unloaded it, and the server has refused the former version."""
    site.install(built("greet"))
    command = site.command(built("greet", 10001), commands=("greet.nothing",))
    former = site.folder(built("greet")) / "greet.so"
    report = site.run_and(command, Phase.PROBING, lambda: former.chmod(0o644))
    assert report.phase is Phase.FAILED
    assert site.server.loaded() == {("greet", 10001)}
    assert (site.folder(built("greet", 10001)) / "greet.so").is_file()


# --- The server's configuration


@pytest.mark.parametrize("former", [None, 10000])
def test_a_server_that_forbids_modules_since_its_restart(site, built, former):
    """It starts with the line of the former version, and then refuses MODULE LOAD."""
    if former:
        site.install(built("greet", former))
    had = {("greet", former)} if former else set()

    def restart():
        site.server.modules = "no"
        site.server.restart()

    for phase in (Phase.INSTALLING, Phase.SETTLING):
        site.server.modules = "local"
        site.server.restart()
        report = site.run_and(site.command(built("greet", 10001), settle_seconds=30), phase, restart)
        assert (report.phase, report.reason) == (Phase.FAILED, Reason.MODULE_COMMAND_DISABLED)
        assert (site.server.loaded(), site.folder(built("greet", 10001)).exists()) == (had, False)
        site.server.restart()
        assert site.server.loaded() == had
