"""`modfleet pack` as a person calls it, on modules that are compiled once."""

import json
import os
import shutil
import signal
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from modfleet.cli import app
from modfleet.sample import SOURCE, compile_module
from modfleet.valkey import valkey_server

MODULES = Path(__file__).parents[2] / "modules"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of a shared object: `greet`, or a C file of tests/modules."""
    folder = tmp_path_factory.mktemp("compiled")
    done: dict[str, Path] = {}

    def compile_once(name: str) -> Path:
        if name not in done:
            source = SOURCE if name == "greet" else MODULES / f"{name}.c"
            done[name] = compile_module(source, folder / f"{name}.so", defines={"VERSION": "1"})
        return done[name]

    return compile_once


@pytest.fixture
def module(compiled: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of the test's own of a compiled module."""

    def copied(name: str = "greet") -> Path:
        return Path(shutil.copy(compiled(name), tmp_path))

    return copied


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that temporary files go to; short, for the path of a socket."""
    folder = Path(tempfile.mkdtemp(prefix="mf"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert [str(path) for path in folder.iterdir()] == []
    folder.rmdir()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> Iterator[Callable[..., Result]]:
    """What `modfleet pack` answers in the test's folder. It leaves no process and no temporary file behind."""
    monkeypatch.chdir(tmp_path)

    def called(*words: object) -> Result:
        return CliRunner().invoke(app, ["pack", *map(str, words)])

    before = signal.getsignal(signal.SIGTERM)
    yield called
    signal.signal(signal.SIGTERM, before)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not processes_with(str(temporary))


def processes_with(words: str) -> list[str]:
    """Command lines of what runs with `words` in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words in line:
            found.append(line)
    return found


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the PATH with valkey-server, the wheel's; redis-server is the system's."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "valkey-server").symlink_to(valkey_server())
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def refused(run: Callable[..., Result], tmp_path: Path) -> Callable[..., str]:
    """The one sentence of a `modfleet pack` that makes nothing."""

    def called(*words: object) -> str:
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        answer = run(*words)
        assert (answer.exit_code, answer.stdout) == (1, "")
        assert len(answer.stderr.splitlines()) == 1
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
        return answer.stderr.strip()

    return called


def module_json_of(package: Path | str) -> Any:
    with zipfile.ZipFile(package) as archive:
        return json.loads(archive.read("module.json"))
