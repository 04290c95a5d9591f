"""The start check: a scratch server of the program on disk, with all lines that the next start would read."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from modfleet.sample import compile_module
from rollout.agent.doctor import check_start_now
from rollout.agent.doctor.host import Host
from rollout.agent.doctor.scratch import scratch_server_runs
from rollout.agent.inspection.process import Process
from rollout.agent.node.start_checks import StartChecks, last_result
from rollout.agent.operations.runner import Runner
from rollout.agent.scratch.confinement import BARRIER, Confinement
from rollout.agent.scratch.live import LiveServer, live_server
from rollout.agent.scratch.start import check_start, next_start
from rollout.agent.server.session import LoadedModule
from rollout.agent.settings import settings_from
from tests.fleet import ROOT
from tests.integration.agent.conftest import SERVERS, SOURCES
from tests.waiting import wait_for

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """Compiles a module of tests/modules once; `as_` is another name for its file."""
    folder = tmp_path_factory.mktemp("compiled")

    def compiled(name, as_=None):
        file = folder / f"{as_ or name}.so"
        return file if file.exists() else compile_module(SOURCES / f"{name}.c", file, defines={"VERSION": "1"})

    return compiled


def lines(site, *words):
    """Write the file that the configuration of the running server includes."""
    (site.modules / "modfleet.conf").write_text("".join(f"{each}\n" for each in words))


def checked(site):
    found = check_start_now(settings_from(site.environ))
    return found.result, found.reason


def test_it_works(site, module):
    site.start()
    lines(site, f"loadmodule {module('base')}", f"loadmodule {module('needs')}")
    assert checked(site) == ("yes", "")


def test_without_a_module(site):
    site.start()
    assert checked(site) == ("yes", "")


def test_a_line_names_a_missing_file(site):
    site.start()
    lines(site, "# ours", "loadmodule /nonexistent/base.so")
    words = f"{site.modules}/modfleet.conf:2 loads /nonexistent/base.so, which does not exist."
    assert checked(site) == ("no", words)


def test_two_lines_load_one_module(site, module):
    site.start()
    first, second = module("base"), module("base", "copy")
    lines(site, f"loadmodule {first}", f"loadmodule {second}")
    file = site.modules / "modfleet.conf"
    words = f"Two lines load the module base: {file}:1 and {file}:2. Remove one of them."
    assert checked(site) == ("no", words)
    lines(site, f"loadmodule {first}", f"loadmodule {first}")
    assert checked(site) == ("no", words)


def test_a_module_stands_before_the_one_that_it_needs(site, module):
    site.start()
    lines(site, f"loadmodule {module('needs')}", f"loadmodule {module('base')}")
    result, reason = checked(site)
    assert result == "no"
    assert reason.startswith(
        f"The server does not start with {site.modules}/modfleet.conf:1, which loads {module('needs')}: "
    )
    assert "initialization failed" in reason


def test_a_module_crashes_the_server(site, module):
    site.start()
    lines(site, f"loadmodule {module('segfaults')}")
    result, reason = checked(site)
    assert result == "no"
    assert reason.startswith("The server does not start (signal 11): ")
    assert "about to crash" in reason


def test_a_module_hangs(site, module):
    site.start()
    lines(site, f"loadmodule {module('hangs')}")
    site.environ["MODFLEET_SCRATCH_SECONDS"] = "0.5"
    assert checked(site) == ("no", "The server has not started within 0.5 s.")


def test_a_setting_of_a_module_that_no_line_loads(site):
    site.start()
    lines(site, "search.timeout 5")
    result, reason = checked(site)
    assert (result, "odule" in reason) == ("no", True)


def test_an_include_of_a_missing_file(site):
    site.start()
    lines(site, f"include {site.folder}/missing.conf")
    assert checked(site) == ("no", f"The configuration includes {site.folder}/missing.conf, which does not exist.")


def test_arguments_of_a_module(site, module):
    site.start()
    lines(site, f"loadmodule {module('needs_arguments')} name 'Ada Lovelace'")
    assert checked(site) == ("yes", "")
    lines(site, f"loadmodule {module('needs_arguments')}")
    assert checked(site)[0] == "no"


# --- Unknown ----------------------------------------------------------------------------------------------------------


def test_the_main_file_cannot_be_read(site):
    site.start()
    site.server.config.unlink()
    assert checked(site) == ("unknown", f"{site.server.config} cannot be read: No such file or directory.")


def test_the_program_is_not_there(site):
    site.start()
    site.environ["MODFLEET_SERVER_BINARY"] = "/nonexistent"
    assert checked(site) == ("unknown", "The server's program /nonexistent cannot be executed here.")


def test_the_server_is_away(site):
    result, reason = checked(site)
    assert (result, reason) == ("unknown", "The server does not answer: see server_socket.")


def test_a_module_that_no_visible_line_loads(site, module):
    site.start()
    with site.server.client() as client:
        client.execute_command("MODULE", "LOAD", str(module("base")))
    result, reason = checked(site)
    assert result == "unknown"
    assert reason.startswith("No visible line loads base")


# --- The check of scratch servers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespaces", "parts", "words"),
    [
        (True, BARRIER, ""),
        (True, (), " Isolation: no filter of system calls; it can hold up others"),
        (False, BARRIER, " The agent cannot create namespaces. Isolation: no namespaces; it sees the names"),
        (False, (), " The agent cannot create namespaces. Isolation: none; it sees the files"),
    ],
)
def test_the_doctor_says_what_a_scratch_server_may_do(site, monkeypatch, namespaces, parts, words):
    monkeypatch.setattr("rollout.agent.scratch.confinement._namespaces_work", lambda _: namespaces)
    monkeypatch.setattr("rollout.agent.scratch.confinement._barrier", lambda: frozenset(parts))
    monkeypatch.setattr("rollout.agent.scratch.confinement._works", lambda _: False)
    site.start()
    message = scratch_server_runs(Host(settings_from(site.environ))).message
    assert (f".{words}" if words else "namespaces of its own.") in message
    assert ("Isolation:" in message) == bool(words)


# --- The command line -------------------------------------------------------------------------------------------------


def live(site, *arguments):
    process = Process(pid=os.getpid(), arguments=tuple(map(str, arguments)))
    return LiveServer(
        program=site.server.binary, product="", config_file="", process=process, confinement=Confinement()
    )


def by_arguments(site, *arguments):
    found = check_start(next_start(live(site, *arguments)), (), seconds=30)
    return found.result, found.reason


def test_lines_of_the_command_line(site, module):
    assert by_arguments(site, "--loadmodule", module("base"), "--port", "0") == ("yes", "")
    lines(site, f"loadmodule {module('base')}")
    file = site.modules / "modfleet.conf"
    result, reason = by_arguments(site, "--include", file, "--loadmodule", module("base", "copy"))
    words = f"Two lines load the module base: {file}:1 and the command line. Remove one of them."
    assert (result, reason) == ("no", words)


def test_options_of_a_variable_are_not_known(site, module):
    """As in units of Fedora. The unit's EnvironmentFile= has its value."""
    loaded = (LoadedModule(name="base", version=1, path=str(module("base"))),)
    found = check_start(next_start(live(site, "--port", "0", "$OPTIONS")), loaded, seconds=30)
    assert (found.result, found.reason.startswith("No visible line loads base")) == ("unknown", True)
    assert check_start(next_start(live(site, "--port", "0")), loaded, seconds=30).result == "yes"


def test_neither_file_nor_command_line_is_visible(site):
    start = next_start(replace(live(site), process=None))
    assert start.unknown == "The server was started without a configuration file, and its command line is not visible."


def test_another_users_module_is_not_run_as_the_agents_user(site, module, tmp_path):
    copy = tmp_path / "base.so"
    copy.write_bytes(module("base").read_bytes())
    copy.chmod(0o777)
    words = f"the command line loads {copy}, which another user than root and the agent's can change."
    assert by_arguments(site, "--loadmodule", copy) == ("unknown", words)


# --- In the background ------------------------------------------------------------------------------------------------


@pytest.fixture
def checks(site):
    """The checks of an agent, and how a heartbeat asks for the newest result."""
    site.start()
    changes: list[None] = []
    made = StartChecks(settings_from(site.environ), changed=lambda: changes.append(None))

    def newest():
        with site.server.client() as client:
            found = made.newest({key: str(value) for key, value in client.info("server").items()}, ())
        return found and (str(found.result), found.reason)

    yield made, newest, changes
    wait_for(lambda: not [each for each in threading.enumerate() if each.name == "start-check"])


def test_a_change_of_a_line_or_a_file_is_seen(site, checks, module):
    _, newest, changes = checks
    assert newest() is None
    wait_for(lambda: newest() == ("yes", ""))
    copy = site.folder / "copy.so"
    copy.write_bytes(module("base").read_bytes())
    copy.chmod(0o755)
    lines(site, f"loadmodule {copy}")
    copy.unlink()
    wait_for(lambda: newest()[0] == "no")
    copy.write_bytes(module("base").read_bytes())
    copy.chmod(0o755)
    wait_for(lambda: newest()[0] == "yes")
    copy.write_bytes(module("refuses").read_bytes())
    wait_for(lambda: newest()[0] == "no")
    wait_for(lambda: len(changes) >= 4)


def test_a_change_that_keeps_size_and_time_is_seen(site, checks, module):
    _, newest, _ = checks
    copy = site.folder / "copy.so"
    copy.write_bytes(module("base").read_bytes())
    copy.chmod(0o755)
    lines(site, f"loadmodule {copy}")
    wait_for(lambda: newest() == ("yes", ""))
    before = copy.stat()
    copy.write_bytes(bytes(before.st_size))
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    wait_for(lambda: newest()[0] == "no")


def test_a_change_of_the_servers_unit_is_seen(site, checks, monkeypatch):
    """The server runs on: its unit has other options for the next start."""
    _, newest, _ = checks
    monkeypatch.setattr("rollout.agent.node.start_checks.LIVE_SECONDS", 0.0)
    wait_for(lambda: newest() == ("yes", ""))
    changed = Process(pid=os.getpid(), arguments=("--loadmodule", "/nonexistent"))
    monkeypatch.setattr(
        "rollout.agent.node.start_checks.live_server",
        lambda settings, info: replace(live_server(settings, info), process=changed),
    )
    wait_for(lambda: newest()[0] == "no")


def test_the_result_is_kept_for_the_doctor_and_the_next_agent(site, checks):
    _, newest, _ = checks
    lines(site, "loadmodule /nonexistent")
    wait_for(newest)
    wait_for(lambda: last_result(settings_from(site.environ)))
    assert newest()[0] == "no"
    finding = site.examine()["start_check"]
    assert (finding.status, "/nonexistent, which does not exist." in finding.message) == ("fail", True)
    again = StartChecks(settings_from(site.environ), changed=lambda: None)
    result = again.newest({}, ())
    assert result
    assert result.result == "no"


def test_nothing_is_started_while_nothing_changes(site, checks, monkeypatch):
    made, newest, _ = checks
    wait_for(newest)
    started = []
    monkeypatch.setattr("rollout.agent.node.start_checks.check_start", lambda *_, **__: started.append(1))
    for _ in range(3):
        newest()
        wait_for(lambda: not [each for each in threading.enumerate() if each.name == "start-check"])
    assert started == []
    made.again()
    wait_for(lambda: started)


def test_off_checks_nothing(site, binary):
    site.environ["MODFLEET_SCRATCH"] = "off"
    made = StartChecks(settings_from(site.environ), changed=lambda: None)
    assert made.newest({"executable": str(binary), "config_file": "/x", "run_id": "a"}, ()) is None
    assert not [each for each in threading.enumerate() if each.name == "start-check"]


# --- By hand ----------------------------------------------------------------------------------------------------------


def by_hand(site, *words):
    command = [sys.executable, "-m", "modfleet", "agent", "doctor", "--start-check", *words]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | site.environ, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_by_hand(site, module):
    site.start()
    assert by_hand(site) == (0, "The server would start with all its modules.\n")
    lines(site, "loadmodule /nonexistent")
    code, said = by_hand(site, "--json")
    assert (code, json.loads(said)["would_start"]) == (1, "no")
    site.server.config.unlink()
    code, said = by_hand(site)
    assert (code, said.startswith("It is not known if the server would start.")) == (2, True)


def test_before_an_upgrade_of_the_server(site, module, binary):
    site.start()
    lines(site, f"loadmodule {module('valkey_only')}")
    expected = {"valkey-server": 0, "redis-server": 1}
    for program in SERVERS:
        assert by_hand(site, "--binary", str(program))[0] == expected[Path(program).name]
    assert by_hand(site, "--binary", "/nonexistent")[0] == 2


def test_the_heartbeat_has_the_newest_result(site):
    site.start()
    settings = settings_from(site.environ)
    runner = Runner(settings, start_checks=StartChecks(settings, changed=lambda: None))

    def facts():
        found = runner.heartbeat(hello=False).facts
        assert found
        return found.would_start, found.would_start_reason

    wait_for(lambda: facts() == ("yes", ""))
    lines(site, "loadmodule /nonexistent")
    wait_for(lambda: facts()[0] == "no")
    assert "/nonexistent, which does not exist." in facts()[1]
    site.server.stop()  # it is checked further
    lines(site)
    wait_for(lambda: facts()[0] == "yes")
    wait_for(lambda: not [each for each in threading.enumerate() if each.name == "start-check"])


def test_a_program_and_a_module_behind_links_in_a_hidden_directory(site, module, binary, tmp_path):
    """A scratch server does not see /tmp."""
    (tmp_path / "bin").symlink_to(binary.parent)
    (tmp_path / "lib").symlink_to(module("base").parent)
    site.start()
    lines(site, f"loadmodule {tmp_path}/lib/base.so")
    assert check_start_now(settings_from(site.environ), tmp_path / "bin" / binary.name).result == "yes"


def test_a_program_that_the_kernel_does_not_start(site, tmp_path):
    program = tmp_path / "server"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    site.start()
    found = check_start_now(settings_from(site.environ), program)
    assert (found.result, "could not be started: " in found.reason) == ("unknown", True)
