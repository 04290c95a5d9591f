"""Scratch servers that load a module which attacks the host, in each way to confine them.

The tests need a host with other users: `test_as_root.py` runs them in one, if root does not.
"""

import os
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from modfleet.sample import compile_module
from rollout.agent.scratch.confinement import BARRIER, CALLS, Confinement
from rollout.agent.scratch.server import ScratchEndedError, scratch_server
from rollout.agent.server.session import RefusedError
from tests.integration.agent.conftest import SOURCES
from tests.integration.agent.test_scratch import processes_in

#: Neither root nor the owner of any file. Each worker has another one: a limit counts all processes of a user.
OTHER_USER = (uid := 64000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), uid, ())
NAMESPACES, BARRED = Confinement(is_isolated=True, barred=CALLS), Confinement(barred=BARRIER)


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
