"""A module enters a scratch server first. If that server crashes, hangs or refuses, the live one was never touched."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from artifacts_app.package import inspect_package
from modfleet.packing.build import Order, make_package
from rollout.agent.inspection.host import PLATFORM
from rollout.agent.operations.runner import Runner
from rollout.agent.scratch.confinement import Confinement
from rollout.agent.scratch.live import live_server
from rollout.agent.scratch.server import PREFIX, ScratchEndedError, UnavailableError, scratch_server
from rollout.agent.settings import settings_from
from rollout.messages import Phase, Reason, scratch_key, to_json
from tests.integration.agent.conftest import ROOT, SERVERS, described

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])

ENVIRON = {
    "MODFLEET_NODE": "n1",
    "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
    "MODFLEET_CONTROL_URL": "http://127.0.0.1:1",
    "MODFLEET_SERVER_URL": "redis://127.0.0.1:2",
    "MODFLEET_MODULES_DIR": "/nonexistent/modules",
    "MODFLEET_JOURNAL_DIR": "/nonexistent/journal",
}

#: An agent that carries out the command of its standard input.
AGENT = """
import json, os, sys
from rollout.agent.operations.runner import Runner
from rollout.agent.settings import settings_from
from rollout.messages import Command, from_json
Runner(settings_from(os.environ)).execute(from_json(Command, json.load(sys.stdin)), report=print)
"""


@pytest.fixture(autouse=True)
def temporary(short_folder, monkeypatch):
    """The folder of the scratch servers. None stays behind, and no process that is in one."""
    folder = short_folder / "t"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    assert processes_in(folder) == []


def processes_in(folder):
    """The pids of the processes that work in a scratch server's folder."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if str((each / "cwd").readlink()).startswith(str(folder)):
                found.append(int(each.name))
        except OSError:
            continue
    return found


def set_up(site, **settings):
    site.environ |= {f"MODFLEET_{name}": value for name, value in settings.items()}
    site.runner = Runner(settings_from(site.environ))


def run_id(site):
    return site.runner.node.facts().run_id


def scratches(site):
    """The successes that the node keeps."""
    file = site.root / "journal/.scratch.json"
    return json.loads(file.read_text()) if file.exists() else []


def test_it_works(site, built):
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.SUCCEEDED, None)
    assert report.scratch.problem == ""
    assert (report.scratch.has_types, report.scratch.aux_data) == (False, False)
    assert report.scratch.commands == ("greet.hello",)
    assert "memory: at most 1024 MB" in report.scratch.differences


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("crashes", Reason.SCRATCH_LOAD_FAILED, "the server ended when crashes 10000 was loaded (signal 9)."),
        ("segfaults", Reason.SCRATCH_LOAD_FAILED, "the server ended when segfaults 10000 was loaded (signal 11)."),
        ("refuses", Reason.LOAD_FAILED, "The server refuses to load refuses 10000"),
        ("undefined", Reason.UNDEFINED_SYMBOL, "no library on the node has the symbol"),
    ],
)
def test_a_module_that_cannot_be_loaded_never_reaches_the_live_server(site, built, name, reason, words):
    before = run_id(site)
    report = site.install(built(name))
    assert (report.phase, report.reason) == (Phase.FAILED, reason)
    assert report.message.startswith("In a scratch server: ")
    assert words in report.message
    assert run_id(site) == before
    assert site.left() == []


def test_the_reason_has_the_last_lines_of_the_log(site, built):
    report = site.install(built("segfaults"))
    assert "<segfaults> about to crash" in report.message
    assert any("crashed by signal" in each for each in report.server_log)


def test_a_module_that_hangs_is_killed(site, built):
    set_up(site, SCRATCH_SECONDS="0.5")
    before = run_id(site)
    report = site.install(built("hangs"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SCRATCH_HUNG)
    assert report.message.startswith(
        "In a scratch server: the server did not answer within 0.5 s when hangs 10000 was loaded."
    )
    assert run_id(site) == before


@pytest.mark.parametrize("step", ["load", "save", "unload"])
@pytest.mark.parametrize("way", ["crash", "end", "hang"])
def test_the_reason_names_the_step(site, built, step, way):
    set_up(site, SCRATCH_SECONDS="1" if way == "hang" else "30")
    before = run_id(site)
    report = site.install(built("stumbles"), command_line_args=f"{step} {way}")
    done = {"load": "was loaded", "save": "saved an empty RDB", "unload": "was unloaded"}[step]
    words = {
        "crash": f"the server ended when stumbles 10000 {done} (signal 6).",
        "end": f"the server ended when stumbles 10000 {done} (exit code 0).",
        "hang": f"the server did not answer within 1 s when stumbles 10000 {done}.",
    }[way]
    reason = Reason.SCRATCH_HUNG if way == "hang" else Reason.SCRATCH_LOAD_FAILED
    assert (report.phase, report.reason) == (Phase.FAILED, reason)
    assert report.message.startswith(f"In a scratch server: {words}")
    assert run_id(site) == before


def test_a_module_that_keeps_the_server_from_saving_fails(site, built):
    report = site.install(built("stumbles"), command_line_args="save refuse")
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SCRATCH_LOAD_FAILED)
    assert report.message.startswith("In a scratch server: after stumbles 10000 was loaded, the server refused: ")
    assert "NOSAVE" in report.message


def test_it_learns_of_data_types(site, built):
    report = site.install(built("types"))
    assert (report.phase, report.scratch.has_types, report.scratch.aux_data) == (Phase.SUCCEEDED, True, False)


def test_it_learns_of_auxiliary_data(site, built):
    report = site.install(built("aux"))
    assert (report.phase, report.scratch.has_types, report.scratch.aux_data) == (Phase.SUCCEEDED, True, True)


def test_the_modules_that_it_needs_are_loaded_first(site, built):
    site.install(built("base"))
    report = site.install(built("needs"), load_order=("base", "needs"))
    assert report.phase is Phase.SUCCEEDED
    assert not any(each.startswith("module:") for each in report.scratch.differences)


def test_a_module_with_arguments_gets_them(site, built):
    args = replace(built("needs_arguments"), name="args", version=20304)
    assert site.install(args, command_line_args="name Ada").phase is Phase.SUCCEEDED
    site.remove(args)
    report = site.install(args, command_line_args="name Ada", scratch_args="wrong")
    assert report.message.startswith("In a scratch server: The server refuses to load args 20304")
    assert site.install(args, command_line_args="name Ada", scratch_args="name Bob").phase is Phase.SUCCEEDED
    report = site.install(args, command_line_args="name Eve", scratch_args="'")
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.LOAD_FAILED)
    assert "scratch_args cannot be split" in report.message


# --- Once is enough ---------------------------------------------------------------------------------------------------


def test_a_success_is_kept(site, built, monkeypatch):
    first = site.install(built("greet"))
    site.remove(built("greet"))
    site.restart_agent()
    monkeypatch.setattr("rollout.agent.operations.scratch.load_in_scratch", None)
    again = site.install(built("greet"))
    assert (again.phase, again.scratch) == (Phase.SUCCEEDED, first.scratch)
    other = site.install(built("greet", 10001))
    assert other.reason is Reason.AGENT_ERROR  # it tried


@pytest.mark.parametrize("aof", ["no"])
def test_data_types_that_were_seen_count_as_declared_ones(site, built):
    """The line is written together with the load, and not only when the server has settled."""
    seen = []
    command = site.command(built("keeps"), settle_seconds=0.2)
    site.run_and(command, Phase.SETTLING, lambda: seen.extend(site.include()))
    assert seen == [f"loadmodule {site.folder(built('keeps'))}/keeps.so"]


@pytest.mark.parametrize("aof", ["no"])
@pytest.mark.parametrize("is_known_here", [True, False])
def test_auxiliary_data_that_was_seen_is_kept(site, built, is_known_here):
    """By this node, or, as the command says, by another one."""
    site.install(built("aux"))
    if not is_known_here:
        (site.root / "journal/.scratch.json").unlink()
    site.restart_agent()
    site.server.call("CONFIG", "SET", "save", "3600 1")
    report = site.remove(built("aux"), aux_data=None if is_known_here else True)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.AUX_DATA)
    assert site.server.loaded() == {("aux", 10000)}


def test_a_failure_is_not_kept(site, built):
    site.install(built("refuses"))
    assert scratches(site) == []
    assert site.install(built("refuses")).message.startswith("In a scratch server: ")


def test_a_damaged_file_has_no_successes(site, built):
    (site.root / "journal/.scratch.json").write_text("{")
    assert site.install(built("greet")).phase is Phase.SUCCEEDED
    assert len(scratches(site)) == 1


# --- The setting ------------------------------------------------------------------------------------------------------


def test_warn_loads_what_has_failed(site, built):
    set_up(site, SCRATCH="warn", SERVER_BINARY="/usr/bin/false")
    report = site.install(built("greet"))
    assert report.phase is Phase.SUCCEEDED
    assert report.scratch.problem.startswith("No scratch server can run on this node")


def test_warn_loads_what_a_scratch_server_has_refused(site, built):
    args = replace(built("needs_arguments"), name="args", version=20304)
    set_up(site, SCRATCH="warn")
    report = site.install(args, command_line_args="name Ada", scratch_args="wrong")
    assert (report.phase, site.server.loaded()) == (Phase.SUCCEEDED, {("args", 20304)})
    assert "give me: name <word>" in report.scratch.problem


def test_off_tries_nothing(site, built):
    set_up(site, SCRATCH="off")
    report = site.install(built("greet"))
    assert (report.phase, report.scratch) == (Phase.SUCCEEDED, None)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/nonexistent", "The server's program /nonexistent cannot be executed here."),
        ("/usr/bin/false", "The scratch server has ended (exit code 1)."),
    ],
)
def test_without_a_scratch_server_nothing_is_loaded(site, built, program, words):
    set_up(site, SERVER_BINARY=program)
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SCRATCH_UNAVAILABLE)
    assert words in report.message
    assert site.server.loaded() == set()


def test_a_program_that_a_shell_has_found_is_found_again(binary, tmp_path, monkeypatch):
    """Such a server names a file in its working directory."""
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = settings_from(ENVIRON)
    info = {"executable": f"/nonexistent/{binary.name}", "redis_version": "7.0.15"}
    with pytest.raises(UnavailableError, match="is not visible to the agent"):
        live_server(settings, info)
    (tmp_path / binary.name).symlink_to(binary)
    assert live_server(settings, info).program == tmp_path / binary.name


def test_another_version_of_the_program_says_nothing(site, built, binary):
    other = next(each for each in SERVERS if each != binary)
    set_up(site, SERVER_BINARY=str(other))
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SCRATCH_UNAVAILABLE)
    assert "Restart the server, or install the module first on a node that runs" in report.message


def test_a_success_on_another_node_is_enough(site, built):
    key = site.install(built("greet")).scratch.key
    site.remove(built("greet"))
    (site.root / "journal/.scratch.json").unlink()
    set_up(site, SERVER_BINARY="/nonexistent")
    assert site.install(built("greet")).reason is Reason.SCRATCH_UNAVAILABLE
    report = site.install(built("greet"), scratch_done=(key,), scratch_sources=("package",))
    assert (report.phase, report.scratch.source) == (Phase.SUCCEEDED, "package")


def test_a_node_that_can_run_one_does_not_rely_on_another(site, built):
    key = site.install(built("greet")).scratch.key
    site.remove(built("greet"))
    (site.root / "journal/.scratch.json").unlink()
    report = site.install(built("greet"), scratch_done=(key,), scratch_sources=("node liar",))
    assert (report.phase, report.scratch.source, len(scratches(site))) == (Phase.SUCCEEDED, "", 1)


@pytest.mark.parametrize("other", [{"server": "redis 0.0.1"}, {"platform": "linux/x86_64/other1"}])
def test_a_success_elsewhere_is_none_here(site, built, other):
    """On another version of the server, or on another platform."""
    here = site.server.call("INFO", "server")
    server = f"valkey {here['valkey_version']}" if "valkey_version" in here else f"redis {here['redis_version']}"
    platform = f"{PLATFORM}/{site.runner.node.operating_system}"
    what = {"content_sha256": built("greet").package.content_sha256, "server": server, "platform": platform}
    set_up(site, SERVER_BINARY="/nonexistent")
    elsewhere = scratch_key(**what | other, args=("",))
    report = site.install(built("greet"), scratch_done=(elsewhere,), scratch_sources=("node n2",))
    assert report.reason is Reason.SCRATCH_UNAVAILABLE
    same = scratch_key(**what, args=("",))
    assert site.install(built("greet"), scratch_done=(same,), scratch_sources=("node n2",)).phase is Phase.SUCCEEDED


def test_a_program_that_was_replaced_on_disk_is_still_used(site, built, binary):
    """The package was upgraded, and the server was not restarted: it still has its old program in memory."""
    program = site.root / binary.name
    shutil.copy(binary, program)
    site.server.kill()
    site.server.binary = program
    site.server.start()
    program.unlink()
    shutil.copy(next(each for each in SERVERS if each != binary), program)
    report = site.install(built("greet"))
    assert (report.phase, report.scratch.problem) == (Phase.SUCCEEDED, "")


def test_a_success_of_modfleet_pack_is_that_of_a_node(site, built, binary, tmp_path):
    module = tmp_path / "greet.so"
    with zipfile.ZipFile(io.BytesIO(built("greet").blob)) as archive:
        module.write_bytes(archive.read("greet.so"))
    made = make_package(
        Order(module=module, to=tmp_path / "greet.zip", servers=(str(binary),), flags={"license": "MIT"})
    )
    with made.path.open("rb") as file:
        package = inspect_package(file, max_unpacked_bytes=10**9, max_members=10)
    (success,) = package.metadata.document["scratch_successes"]
    assert (success["has_types"], success["aux_data"]) == (False, False)
    assert (success["commands"], success["options"]) == (["greet.hello"], [])
    key = scratch_key(
        content_sha256=package.content_sha256,
        server=success["server"],
        args=(*success["args"], "", *success["scratch_args"]),
        platform=success["platform"],
    )
    assert site.install(described("greet", 10000, made.path.read_bytes(), ("greet.hello",))).scratch.key == key


# --- The scratch server itself ----------------------------------------------------------------------------------------


def test_it_has_no_secrets(binary, monkeypatch):
    monkeypatch.setenv("MODFLEET_BROKER_URL", "redis://:secret@broker")
    with scratch_server(binary, Confinement(), seconds=30) as server, server.started() as session:
        pid = session.info("server")["process_id"]
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"secret" not in environ
        assert b"MODFLEET" not in environ
        assert session.call("CONFIG", "GET", "port")[1] == "0"
        files = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}  # noqa: PTH115
        assert not [
            each for each in files if each.startswith("/") and not each.startswith(("/dev/", str(server.directory)))
        ]


def test_its_memory_is_limited(binary):
    with scratch_server(binary, Confinement(megabytes=128), seconds=30) as server:
        with pytest.raises(ScratchEndedError, match="ended"), server.started() as session:
            session.call("SETRANGE", "key", "300000000", "x")
        assert "ut Of Memory" in "".join(server.log()) or "ut of memory" in "".join(server.log())


def test_a_program_that_another_user_can_replace_is_not_run(binary, tmp_path):
    program = tmp_path / "server"
    program.write_bytes(binary.read_bytes())
    program.chmod(0o777)
    assert not Confinement().trusts(program)
    assert Confinement(user=(65534, 65534, ())).trusts(program)


def test_children_that_leave_their_session_are_killed(binary, temporary, tmp_path):
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\nsetsid sleep 1000 &\nexit 3\n")  # as a module could do
    program.chmod(0o755)
    with scratch_server(program, Confinement(), seconds=30) as server:
        with pytest.raises(ScratchEndedError, match="exit code 3"), server.started():
            pass
        assert processes_in(temporary)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_agent_leaves_nothing(site, built, temporary, waits, number):
    words = [sys.executable, "-c", AGENT]
    environ = os.environ | site.environ
    with subprocess.Popen(words, stdin=subprocess.PIPE, env=environ, cwd=ROOT, text=True) as agent:
        assert agent.stdin
        agent.stdin.write(json.dumps(to_json(site.command(built("hangs")))))
        agent.stdin.close()
        waits(lambda: processes_in(temporary))
        agent.send_signal(number)
    waits(lambda: not list(temporary.iterdir()))
    waits(lambda: not processes_in(temporary))


def test_a_killed_keeper_leaves_no_process(binary, temporary, waits):
    with scratch_server(binary, Confinement(), seconds=30) as server, server.started():
        assert processes_in(temporary)
        server._keeper.kill()
        waits(lambda: not processes_in(temporary))


def test_what_a_killed_keeper_has_left_is_deleted_later(binary, temporary):
    left = temporary / f"{PREFIX}left"
    left.mkdir()
    os.utime(left, (time.time() - 7200,) * 2)
    with scratch_server(binary, Confinement(), seconds=30):
        assert not left.exists()


def test_a_server_that_does_not_start_in_time_says_nothing_about_the_module(site, built, tmp_path):
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\nsleep 1000\n")
    program.chmod(0o755)
    set_up(site, SERVER_BINARY=str(program), SCRATCH_SECONDS="0.3")
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SCRATCH_UNAVAILABLE)
    assert "The module was not loaded yet." in report.message


def test_a_path_that_is_no_text_does_not_spoil_the_report(site, built):
    set_up(site, SCRATCH="warn", SERVER_BINARY="/nonexistent/\udcff")
    report = site.install(built("greet"))
    assert report.phase is Phase.SUCCEEDED
    assert "/nonexistent/?" in report.scratch.problem
