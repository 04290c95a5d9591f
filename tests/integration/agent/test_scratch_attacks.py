"""A module that attacks the host in a scratch server harms neither the live server nor the agent."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from modfleet.sample import compile_module
from rollout.agent.inspection.process import Process
from rollout.agent.scratch.confinement import Confinement, confinement_of
from rollout.agent.scratch.server import ScratchEndedError, ScratchSilentError, scratch_server
from rollout.agent.server.session import RefusedError
from rollout.agent.settings import settings_from
from rollout.messages import MOST_SCRATCH_FACTS, Phase, Reason
from tests.integration.agent.conftest import SERVERS, SOURCES
from tests.integration.agent.test_scratch import ENVIRON, processes_in, run_id, set_up
from tests.waiting import wait_for

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])

NOBODY = (65534, 65534, ())
#: What an agent without root gets, and what one with root gets.
CONFINEMENTS = [Confinement(is_isolated=True), Confinement(is_isolated=True, user=NOBODY)]
each_agent = pytest.mark.parametrize("confinement", CONFINEMENTS, ids=["agents-user", "servers-user"])


@pytest.fixture(scope="session")
def attacks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks")
    module = compile_module(SOURCES / "attacks.c", folder / "attacks.so", defines={"VERSION": "10000"})
    module.chmod(0o755)
    return module


@pytest.fixture(autouse=True)
def temporary(monkeypatch):
    """The folder of the scratch servers. Nothing stays behind."""
    folder = Path(tempfile.mkdtemp(prefix="mf"))
    folder.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    assert processes_in(folder) == []
    folder.rmdir()


def said(binary, confinement, attacks, *args, seconds=30.0):
    """What the module, and the server about it, have logged."""
    shown = confinement.showing([attacks])
    with scratch_server(binary, shown, seconds=seconds) as server:
        try:
            with server.started() as session:
                session.load(str(attacks), args)
        except RefusedError:
            return "\n".join(server.log())
        except ScratchEndedError as error:
            return "\n".join((*error.lines, error.ended))
    pytest.fail("the module was loaded")


# --- The live server --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["socket", "port"])
def test_it_cannot_talk_to_the_live_server(site, built, attacks, waits, way):
    """The live server is on a Unix socket and on a port of the host."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    site.server.call("CONFIG", "SET", "port", port)
    site.server.call("SET", "key", "value")
    before = run_id(site)
    report = site.install(
        built("attacks"), command_line_args=f"{way} {site.server.socket if way == 'socket' else port}"
    )
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.LOAD_FAILED)
    assert f"{way}: failed" in report.message
    assert run_id(site) == before
    assert site.server.call("GET", "key") == "value"


@each_agent
def test_it_cannot_kill_another_process_of_its_user(binary, confinement, attacks):
    user = confinement.user[0] if confinement.user else os.geteuid()
    with subprocess.Popen(["sleep", "1000"], user=user) as other:
        assert "kill: failed" in said(binary, confinement, attacks, "kill", str(other.pid))
        assert other.poll() is None
        other.kill()


# --- Files ------------------------------------------------------------------------------------------------------------


@each_agent
def test_it_cannot_write_a_file_of_its_user(binary, confinement, attacks):
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as one, tempfile.NamedTemporaryFile(dir="/var/lib") as other:
        for each in (one, other):
            os.chown(each.name, *(confinement.user or (0, 0))[:2])
            said(binary, confinement, attacks, "write", each.name)
            assert Path(each.name).read_bytes() == b""


def test_it_cannot_read_the_secrets_of_the_agent(site, built):
    secret = site.root / "journal/secret"
    for each in (secret, Path("/proc/1/environ"), Path(f"/proc/{os.getpid()}/environ")):
        secret.write_text("open sesame")
        report = site.install(built("attacks"), command_line_args=f"read {each}")
        assert "has read" not in "".join(report.server_log) or each == Path("/proc/1/environ")
        assert "MODFLEET" not in "".join(report.server_log)
        assert "sesame" not in "".join((report.message, *report.server_log))


def test_it_cannot_have_the_agent_read_another_file(binary, attacks, tmp_path):
    """An agent that is root reads the log; the server's user could replace it by a link."""
    secret = tmp_path / "secret"
    secret.write_text("Running mode=\nopen sesame\n")
    secret.chmod(0o600)
    words = said(binary, Confinement(user=NOBODY), copied(attacks), "log", str(secret))
    assert "log: failed" in words
    assert "sesame" not in words


def copied(attacks):
    """A copy that any user can read."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    return Path(shutil.copy(attacks, folder))


@each_agent
def test_it_gets_no_rights(binary, confinement, attacks):
    words = said(binary, confinement, attacks, "root")
    assert ("root: failed" in words) == (confinement.user is not None)


# --- Resources --------------------------------------------------------------------------------------------------------


@each_agent
def test_processes_that_escape_are_killed(binary, confinement, attacks, temporary):
    shown = confinement.showing([attacks])
    with scratch_server(binary, shown, seconds=30) as server, server.started() as session:
        with pytest.raises(RefusedError):
            session.load(str(attacks), ["escape"])
        wait_for(lambda: len(processes_in(temporary)) > 1)
    wait_for(lambda: not processes_in(temporary))


@each_agent
def test_it_cannot_fill_the_disk(binary, confinement, attacks):
    words = said(binary, confinement, attacks, "fill")
    assert "it has written too much" in words


@each_agent
def test_it_cannot_take_all_memory(binary, confinement, attacks):
    assert "signal 6" in said(binary, confinement, attacks, "memory")


@each_agent
def test_it_cannot_spin_for_ever(binary, confinement, attacks):
    with pytest.raises(ScratchSilentError):
        said(binary, confinement, attacks, "spin", seconds=1.0)


@each_agent
def test_its_ports_are_not_those_of_the_host(binary, confinement, attacks):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "listen: succeeded" in said(binary, confinement, attacks, "listen", str(taken.getsockname()[1]))


# --- Reports ----------------------------------------------------------------------------------------------------------


def test_what_it_logs_is_short_and_plain(site, built):
    report = site.install(built("attacks"), command_line_args="shout farewell")
    assert report.reason is Reason.SCRATCH_LOAD_FAILED
    for text in (report.message, *report.server_log):
        assert len(text) <= 2000
        assert text.isprintable()
        assert "hunter2" not in text
    assert "farewell" in report.message


def test_what_it_adds_is_bounded(site, built):
    report = site.install(built("many"))
    assert report.phase is Phase.SUCCEEDED
    assert len(report.scratch.commands) == MOST_SCRATCH_FACTS
    assert all("\x1b" not in each for each in report.scratch.commands)


# --- The sandbox of the server's unit ---------------------------------------------------------------------------------


@pytest.fixture
def in_debians_unit(monkeypatch):
    """As if Debian's unit had started the live server; its real file is read."""
    assert Path("/lib/systemd/system/redis-server.service").exists()
    monkeypatch.setattr("rollout.agent.inspection.process.unit_of", lambda *_: "redis-server.service")


def test_what_the_unit_may_not_execute_is_refused(site, built, in_debians_unit):
    before = run_id(site)
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXECUTION_FORBIDDEN)
    assert report.message.startswith("In a scratch server: ")
    assert "failed to map segment from shared object" in "".join(report.server_log)
    assert run_id(site) == before


def test_it_is_refused_without_namespaces_too(site, built, in_debians_unit, monkeypatch):
    monkeypatch.setattr("rollout.agent.scratch.confinement._namespaces_work", lambda _: False)
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXECUTION_FORBIDDEN)
    assert "redis-server.service" in report.message


def test_what_the_unit_may_execute_is_loaded(binary, built, in_debians_unit, attacks):
    folder = Path(tempfile.mkdtemp(dir="/usr/lib"))
    try:
        module = shutil.copy(attacks, folder)
        debian = confinement_of(settings_from(ENVIRON), Process(pid=1, uid=0, unit="redis-server.service"))
        words = said(binary, debian, Path(module), "code")
        assert "code: failed" in words  # MemoryDenyWriteExecute
        assert "code: succeeded" in said(binary, Confinement(is_isolated=True), Path(module), "code")
        assert "sandbox: SystemCallFilter of redis-server.service" in debian.differences
        assert not any("NoExecPaths" in each for each in debian.differences)
    finally:
        shutil.rmtree(folder)


def test_a_directory_that_the_server_sees_elsewhere(site, built, in_debians_unit, binary):
    set_up(site, SERVER_MODULES_DIR="/usr/lib/modfleet/n1")
    report = site.install(built("greet"))
    assert report.scratch.problem == "" if report.scratch else report.reason is not Reason.EXECUTION_FORBIDDEN
