"""A module that attacks the host in a scratch server harms neither the live server nor the agent.

The tests need a host with other users: `test_as_root.py` runs them in one, if root does not.
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from modfleet.sample import compile_module
from rollout.agent.inspection.process import Process
from rollout.agent.scratch.confinement import BARRIER, CALLS, Confinement, confinement_of, keeper_words
from rollout.agent.scratch.server import ScratchEndedError, ScratchSilentError, scratch_server
from rollout.agent.server.session import RefusedError
from rollout.agent.settings import settings_from
from rollout.messages import MOST_SCRATCH_FACTS, Phase, Reason
from tests.integration.agent.conftest import SERVERS, SOURCES
from tests.integration.agent.test_scratch import ENVIRON, processes_in, run_id, set_up
from tests.waiting import wait_for

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])

#: Neither root nor the owner of any file. Each worker has another one: a limit counts all processes of a user.
OTHER_USER = (uid := 64000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), uid, ())
NAMESPACES, BARRED = Confinement(is_isolated=True, barred=CALLS), Confinement(barred=BARRIER)
#: What bubblewrap does with the filter.
BUBBLEWRAP = """#!/usr/bin/python3
import ctypes, os, struct, sys
words = sys.argv[1:]
with open(int(words[words.index("--seccomp") + 1]), "rb") as file:
    code = ctypes.create_string_buffer(text := file.read(), len(text))
libc = ctypes.CDLL(None)
filter = struct.pack("@HP", len(text) // 8, ctypes.addressof(code))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter, 0, 0):
    sys.exit("no filter")
program = words[words.index("--") + 1 :]
os.execv(program[0], program)
"""


@pytest.fixture(params=["namespaces", "namespaces-servers-user", "barrier", "barrier-servers-user"])
def confinement(request, monkeypatch):
    """What an agent without root gets, and what one with root gets for the server's user."""
    made = NAMESPACES if request.param.startswith("namespaces") else BARRED
    if request.param.endswith("servers-user"):
        return replace(made, user=OTHER_USER)
    # The keeper of such an agent. That user may not reach the Python of the tests.
    uid, gid, groups = OTHER_USER
    started = partial(subprocess.Popen, user=uid, group=gid, extra_groups=groups)
    monkeypatch.setattr("rollout.agent.scratch.server.subprocess.Popen", started)
    monkeypatch.setattr("rollout.agent.scratch.confinement.sys.executable", "/usr/bin/python3")
    return made


@pytest.fixture(params=["namespaces", "barrier"])
def isolation(request, monkeypatch):
    """A whole agent, on a host with namespaces, and on one without."""
    if request.param == "barrier":
        monkeypatch.setattr("rollout.agent.scratch.confinement._namespaces_work", lambda _: False)
    return request.param


@pytest.fixture(scope="session")
def compiled():
    """Compiles a module into a directory that every user can read."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)

        def compiled(name):
            module = compile_module(SOURCES / f"{name}.c", Path(folder) / f"{name}.so", defines={"VERSION": "10000"})
            module.chmod(0o755)
            return module

        yield compiled


@pytest.fixture(scope="session")
def attacks(compiled):
    return compiled("attacks")


@pytest.fixture(scope="session")
def ordinary(compiled):
    return compiled("ordinary")


@pytest.fixture(autouse=True)
def temporary(monkeypatch):
    """The folder of the scratch servers. Nothing stays behind."""
    folder = Path(tempfile.mkdtemp(prefix="mf"))
    folder.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    assert processes_in(folder) == []
    folder.rmdir()


@pytest.fixture
def other():
    """A process of the scratch server's user, such as the live server, or the agent with its secrets."""
    environ = os.environ | {"SECRET": "open sesame"}
    with subprocess.Popen(["sleep", "1000"], user=OTHER_USER[0], env=environ) as process:
        yield process
        process.kill()


@pytest.fixture
def folder():
    """A directory that is not hidden."""
    with tempfile.TemporaryDirectory(dir="/var/lib") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def file(folder):
    """A file of that user, such as the live server's log. No process has it open: it could not be leased then."""
    path = folder / "file"
    path.write_bytes(b"open sesame")
    path.chmod(0o600)
    os.chown(path, *OTHER_USER[:2])
    return path


def as_other_user(code):
    """What the code has `made`, in words, as that user."""
    program = f"import ctypes; libc = ctypes.CDLL(None); made = (); {code}; print(*made)"
    uid, gid, groups = OTHER_USER
    words = ["/usr/bin/python3", "-c", program]
    done = subprocess.run(words, user=uid, group=gid, extra_groups=groups, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def said(binary, confinement, attacks, *args, seconds=30.0):
    """What the module, and the server about it, have logged."""
    shown = confinement.showing([attacks])
    with scratch_server(binary, shown, seconds=seconds) as server:
        try:
            with server.started() as session:
                session.load(str(attacks), [str(each) for each in args])
        except RefusedError:
            return "\n".join(server.log())
        except ScratchEndedError as error:
            return "\n".join((*error.lines, error.ended))
    pytest.fail("the module was loaded")


def schedule_of(pid):
    return os.sched_getaffinity(pid), os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)


def succeeded(binary, confinement, attacks, pairs):
    """The attacks that have not failed. `pairs`: an attack, and a word for it."""
    words = said(binary, confinement, attacks, *(each for pair in pairs for each in pair))
    return [*(Counter(name for name, _ in pairs) - Counter(re.findall(r"(\w+): failed", words))).elements()]


def test_as_root_it_runs_as_the_user_of_the_server(binary, short_folder, temporary):
    short_folder.chmod(0o755)
    with (
        scratch_server(binary, Confinement(user=OTHER_USER), seconds=30) as server,
        server.started() as session,
    ):
        pid = session.info("server")["process_id"]
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
        assert "Uid:\t{0}\t{0}\t{0}\t{0}".format(OTHER_USER[0]) in Path(f"/proc/{pid}/status").read_text()


def test_an_ordinary_module_works(binary, confinement, ordinary):
    with scratch_server(binary, confinement.showing([ordinary]), seconds=30) as server, server.started() as session:
        with suppress(RefusedError):
            session.load(str(ordinary), [])
        assert [each for each in server.log() if "does not work" in each] == []
        assert "ordinary" in [each.name for each in session.modules()]


# --- The live server --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["socket", "port"])
def test_it_cannot_talk_to_the_live_server(site, built, isolation, way):
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


def test_it_cannot_reach_another_process_of_its_user(binary, confinement, attacks, other):
    ways = ("kill", "limit", "file", "affinity", "scheduling", "priority")
    before = schedule_of(other.pid)
    assert succeeded(binary, confinement, attacks, [(each, other.pid) for each in ways]) == []
    assert other.poll() is None
    assert "Max open files            0" not in Path(f"/proc/{other.pid}/limits").read_text()
    assert schedule_of(other.pid) == before


def test_it_cannot_use_memory_and_messages_of_its_user(binary, confinement, attacks):
    made = as_other_user("made = libc.shmget(0, 4096, 0o1600), libc.msgget(0, 0o1600)")
    segment, queue = made.split()
    try:
        as_other_user(f"assert libc.msgsnd({queue}, bytes(8 * [1]) + b'x', 1, 0) == 0")
        assert succeeded(binary, confinement, attacks, [("segment", segment), ("message", queue)]) == []
    finally:
        as_other_user(f"made = libc.shmctl({segment}, 0, None), libc.msgctl({queue}, 0, None)")


def test_it_leaves_no_objects_and_keys(binary, confinement, attacks):
    """Where the kernel deletes the objects with the namespace, it may create them."""
    name = f"/{os.getpid()}"
    found = succeeded(binary, confinement, attacks, [("objects", name), ("key", name)])
    assert found == (["objects"] if confinement.is_isolated else [])
    key = int(name[1:])
    made = as_other_user(
        f"made = libc.msgget({key}, 0), libc.semget({key}, 1, 0), libc.shmget({key}, 1, 0), libc.mq_open(b'{name}', 0)"
    )
    assert made == "-1 -1 -1 -1"


def test_it_gets_no_namespace_of_its_own(binary, confinement, attacks):
    """It would have all capabilities in it."""
    assert succeeded(binary, confinement, attacks, [("namespace", "")]) == []


def test_it_cannot_reach_a_socket_that_opens_later(binary, confinement, attacks, folder):
    """Such as that of a live server that starts again meanwhile."""
    path = folder / "socket"
    shown = confinement.showing([attacks])
    with (
        scratch_server(binary, shown, seconds=30) as server,
        server.started() as session,
        socket.socket(socket.AF_UNIX) as stream,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
    ):
        for each, name in ((stream, path), (datagrams, folder / "datagrams")):
            each.bind(str(name))
            name.chmod(0o777)
            each.setblocking(False)
        stream.listen()
        with pytest.raises(RefusedError):
            session.load(str(attacks), ["socket", str(path), "send", str(folder / "datagrams")])
        for receive in (stream.accept, lambda: datagrams.recv(1)):
            with pytest.raises(BlockingIOError):
                receive()


def test_it_cannot_end_the_keeper(binary, attacks, confinement, temporary):
    """It would outlive the check then."""
    shown = confinement.showing([attacks])
    with scratch_server(binary, shown, seconds=30) as server, server.started() as session:
        keeper = server._keeper
        with pytest.raises(RefusedError):
            session.load(str(attacks), ["kill", str(keeper.pid)])
        assert "kill: failed" in "\n".join(server.log())
        assert keeper.poll() is None


# --- Files ------------------------------------------------------------------------------------------------------------


def test_it_cannot_change_a_file_of_its_user(binary, confinement, attacks, file):
    ways = ("write", "truncate", "mode", "times", "attributes")
    before = file.stat()
    assert succeeded(binary, confinement, attacks, [(each, file) for each in ways]) == []
    assert file.stat() == before
    assert file.read_bytes() == b"open sesame"


def test_it_cannot_hold_up_those_that_open_or_lock_a_file_of_its_user(binary, confinement, attacks, file):
    """Such as the live server's log, its `nodes.conf`, and the agent's include file."""
    pairs = [("lease", file), ("lock", file), ("notify", file.parent)]
    assert succeeded(binary, confinement, attacks, pairs) == []


def test_it_truncates_no_file_with_an_older_landlock(binary, attacks, file, monkeypatch):
    """Version 2, which Debian 12 has, does not restrict it."""
    *words, code = keeper_words()
    code = code.replace("; keeper.run", "; keeper.barrier.CHANGES[3] = 0; keeper.run")
    monkeypatch.setattr("rollout.agent.scratch.server.keeper_words", lambda: [*words, code])
    assert succeeded(binary, replace(BARRED, user=OTHER_USER), attacks, [("truncate", file)]) == []
    assert file.read_bytes() == b"open sesame"


def test_bubblewrap_gets_the_filter(binary, attacks, file):
    program = file.parent / "bwrap"
    program.write_text(BUBBLEWRAP)
    program.chmod(0o755)
    made = Confinement(user=OTHER_USER, bubblewrap=str(program), barred=CALLS)
    assert succeeded(binary, made, attacks, [("lease", file), ("lock", file)]) == []


def test_it_writes_no_file_elsewhere(binary, confinement, attacks):
    """The temporary directories are empty ones of its own, or closed."""
    paths = [Path(folder) / f"modfleet-attack-{os.getpid()}" for folder in ("/var/tmp", "/dev/shm")]
    found = succeeded(binary, confinement, attacks, [("write", each) for each in paths])
    assert found == (["write", "write"] if confinement.is_isolated else [])
    assert not [each for each in paths if each.exists()]


def test_it_cannot_read_the_secrets_of_its_user(binary, confinement, attacks, other, file):
    hiding = replace(confinement, hidden=(file,))
    paths = (file, f"/proc/{other.pid}/environ")
    assert succeeded(binary, hiding, attacks, [("read", each) for each in paths]) == []


def test_it_cannot_read_the_secrets_of_the_agent(site, built, isolation, monkeypatch):
    """The journal, and the environment of the agent that runs here."""
    monkeypatch.setenv("MODFLEET_SECRET", "open sesame")
    secret = site.root / "journal/secret"
    secret.write_text("open sesame")
    for each in (secret, Path(f"/proc/{os.getpid()}/environ")):
        report = site.install(built("attacks"), command_line_args=f"read {each}")
        words = "".join((report.message, *report.server_log))
        assert "read: failed" in words
        assert "has read" not in words


def test_it_cannot_have_the_agent_read_another_file(binary, confinement, attacks, file):
    """The agent reads the log; the scratch server's user could replace it by a link."""
    file.write_text("Running mode=\nopen sesame\n")
    words = said(binary, confinement, attacks, "log", file)
    assert "log: failed" in words
    assert "sesame" not in words


def test_it_gets_no_rights(binary, confinement, attacks):
    program = Path(shutil.copy("/usr/bin/id", attacks.parent))
    program.chmod(0o4755)
    words = said(binary, confinement.showing([program]), attacks, "root", program)
    assert "root: failed" in words
    assert "not executed" not in words


@pytest.mark.parametrize("made", [NAMESPACES, BARRED], ids=["namespaces", "barrier"])
def test_as_root_it_has_no_rights_either(binary, attacks, file, made):
    """The server's process is not visible to an agent that is root. Root owns the devices, and files in /proc."""
    paths = (file, "/proc/self/comm", "/dev/ptmx")
    assert succeeded(binary, made, attacks, [("write", each) for each in paths]) == []


def test_nothing_is_left_behind(binary, confinement, attacks, temporary):
    """Links and closed directories: `temporary` finds what is left."""
    outside = temporary / "outside"
    outside.mkdir()
    (outside / "file").touch()
    os.chown(outside, *OTHER_USER[:2])
    assert "leave: failed" not in said(binary, confinement, attacks, "leave", outside)
    assert [each.name for each in outside.iterdir()] == ["file"]
    shutil.rmtree(outside)


# --- Resources --------------------------------------------------------------------------------------------------------


def test_processes_that_escape_are_killed(binary, confinement, attacks, temporary):
    shown = confinement.showing([attacks])
    with scratch_server(binary, shown, seconds=30) as server, server.started() as session:
        with pytest.raises(RefusedError):
            session.load(str(attacks), ["escape"])
        wait_for(lambda: len(processes_in(temporary)) > 1)
    assert processes_in(temporary) == []


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("fill", "it has written too much"),
        ("many", "it has started too many processes"),
        ("shared", "it has taken too much memory"),
        ("memory", "signal 6"),
    ],
)
def test_it_cannot_use_up_the_host(binary, confinement, attacks, way, words):
    """RLIMIT_DATA counts no shared memory, RLIMIT_FSIZE one file, and RLIMIT_NPROC all processes of the user."""
    assert words in said(binary, replace(confinement, megabytes=128), attacks, way)


def test_it_cannot_spin_for_ever(binary, confinement, attacks):
    with pytest.raises(ScratchSilentError):
        said(binary, confinement, attacks, "spin", seconds=1.0)


def test_it_has_no_port_of_the_host(binary, confinement, attacks):
    """In namespaces, the same port is another one. Behind the barrier, there is none."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = said(binary, confinement, attacks, "listen", taken.getsockname()[1])
    assert f"listen: {'succeeded' if confinement.is_isolated else 'failed'}" in words


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
        assert "code: succeeded" in said(binary, NAMESPACES, Path(module), "code")
        assert "sandbox: SystemCallFilter of redis-server.service" in debian.differences
        assert not any("NoExecPaths" in each for each in debian.differences)
    finally:
        shutil.rmtree(folder)


def test_a_directory_that_the_server_sees_elsewhere(site, built, in_debians_unit, isolation):
    """The unit forbids the path that the agent sees, and allows that of the server."""
    with tempfile.TemporaryDirectory(dir="/usr/lib") as folder:
        seen = Path(folder) / "modules"
        seen.symlink_to(site.root / "modules")
        set_up(site, SERVER_MODULES_DIR=str(seen))
        report = site.install(built("greet"))
        assert (report.phase, report.message) == (Phase.SUCCEEDED, "")
        assert report.scratch.problem == ""
        assert ("sandbox: NoExecPaths of redis-server.service" in report.scratch.differences) == (
            isolation == "barrier"
        )
