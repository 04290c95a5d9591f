"""A whole cluster of real processes: `modfleet up` in a folder of its own, looked at and hurt from outside."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import httpx
import redis

from modfleet.packing.write import pack
from modfleet.sample import SOURCE, build_sample, compile_module, sample_metadata
from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).parents[1]
PASSWORD = "correct horse battery"
FINAL = {
    "succeeded",
    "completed_with_failures",
    "failed",
    "aborted",
    "rolled_back",
    "rollback_failed",
    "superseded",
    "rejected",
}
#: The time between two requests of a wait, seconds: without one, a test takes much of a small machine.
PAUSE = 0.1
ROLLOUTS = "/v2/rollouts"
ARTIFACTS = "/v2/modules/user-defined/artifacts"


class Up:
    """One `modfleet up` on `folder`; what it says is kept in `output`. All it starts carries a mark of its own."""

    #: All of this process, also those that have ended.
    started: "ClassVar[list[Up]]" = []

    def __init__(
        self,
        folder: Path,
        *words: str,
        output: Path,
        environ: dict[str, str | None] | None = None,
        code: Path = ROOT,
    ) -> None:
        self.folder = folder
        self.mark = f"MARK={uuid.uuid4().hex}".encode()
        given = {key: value for key, value in os.environ.items() if not key.startswith(("MODFLEET_", "DJANGO_"))}
        fast = {"MODFLEET_BEAT_SECONDS": "2", "MODFLEET_RESEND_SECONDS": "1", "MODFLEET_ADMIN_PASSWORD": PASSWORD}
        mark = {"MARK": self.mark.decode()[5:]}
        self.environ: dict[str, str | None] = {**given, **fast, **mark, **(environ or {})}
        self.output, self.errors = (output / f"{self.environ['MARK']}.{each}" for each in ("out", "err"))
        with self.output.open("wb") as out, self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "modfleet", "up", "--data-dir", str(self.folder), "--port", "0", *words],
                cwd=code,
                env={key: value for key, value in self.environ.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                start_new_session=True,
            )
        self.started.append(self)

    def said(self) -> str:
        return self.output.read_text()

    def last_words(self, lines: int = 20) -> str:
        """Its exit code, what it has said, and the last lines of its processes' logs."""
        files = [self.output, self.errors, *sorted((self.folder / "logs").glob("*"))]
        texts = [
            f"{each.name}:\n" + "\n".join(each.read_text().splitlines()[-lines:]) for each in files if each.exists()
        ]
        return "\n".join([f"exit code: {self.process.poll()}", *texts])

    def wait_until_it_says(self, words: str) -> str:
        """The first line that starts with `words`."""

        def look() -> list[str]:
            found = [line for line in self.said().splitlines() if line.strip().startswith(words)]
            assert found or self.process.poll() is None, f"it ended: {self.said()} {self.errors.read_text()}"
            return found

        return wait_for(look)[0].strip()

    @property
    def url(self) -> str:
        return self.wait_until_it_says("ready ").split()[1]

    def pid(self, name: str) -> int:
        return int((self.folder / "run" / f"{name}.pid").read_text())

    def send(self, name: str, number: int) -> int:
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it has been started again."""
        former = self.send(name, signal.SIGKILL)
        wait_for(lambda: self.pid(name) != former)

    def left(self) -> dict[int, bytes]:
        """What still runs of all that it started, by command line."""
        return {pid: _read(pid, "cmdline") for pid in _pids() if self.mark in _read(pid, "environ")}

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code, once nothing is left of it."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        wait_for(lambda: not self.left())
        return code

    def kill_all(self, *more: int) -> None:
        """SIGKILL to it, to all that it has started, and to these processes. Some end by themselves meanwhile."""
        self.process.kill()
        for pid in {*more, *self.left()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def sweep(self) -> None:
        """Whatever a failed test leaves."""
        self.kill_all()
        self.process.wait()
        wait_for(self._is_swept, pause=PAUSE)

    def _is_swept(self) -> bool:
        """Kill what was just being started, and the broker: a server's title hides the mark, but names its socket."""
        socket = f" unixsocket:{self.folder}/".encode()
        servers = [pid for pid in _pids() if socket in _read(pid, "cmdline")]
        self.kill_all(*servers)
        return not (servers or self.left())


def _pids() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]


def _read(pid: int, name: str) -> bytes:
    try:
        content = Path(f"/proc/{pid}/{name}").read_bytes()
        # One that has ended, and that nobody has asked for its exit code, is gone.
        return b"" if b"\nState:\tZ" in Path(f"/proc/{pid}/status").read_bytes() else content
    except OSError:
        return b""


class Fleet:
    """A cluster that serves, and short words for what tests do with it."""

    def __init__(self, up: Up, *, nodes: int = 3) -> None:
        self.names = tuple(f"node-{number}" for number in range(1, nodes + 1))
        self.up = up
        self.folder = up.folder
        self.url = up.url
        self.api = self.client("admin", PASSWORD)

    def client(self, user: str, password: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, auth=(user, password), timeout=PATIENCE)

    def get(self, path: str, **options: Any) -> Any:
        response = self.api.get(path, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: Any = None, *, status: int = 202) -> Any:
        response = self.api.post(path, json=body)
        assert response.status_code == status, response.text
        return response.json()

    def upload(self, package: Path, path: str = ARTIFACTS, **options: Any) -> httpx.Response:
        with package.open("rb") as file:
            return self.api.post(path, files={"module": (package.name, file)}, **options)

    def start(self, version: int, action: str = "install", **fields: Any) -> str:
        """uid of a new rollout of greet."""
        at_once = {"canary": 0, "max_parallel": 10, "max_failures": "100%"}
        strategy = {"settle_seconds": 0.1, **fields.pop("strategy", at_once)}
        body = {"action": action, "module_name": "greet", "version": version, "strategy": strategy, **fields}
        uid: str = self.post(ROLLOUTS, body)["uid"]
        return uid

    def rollout(self, uid: str) -> Any:
        return self.get(f"{ROLLOUTS}/{uid}")

    def wait_for_wave(self, uid: str, wave: int, phase: str) -> None:
        wait_for(lambda: self.rollout(uid)["waves"][wave]["phase"] == phase, pause=PAUSE, state=lambda: self.state(uid))

    def wait_for_rollout(self, uid: str, phase: str) -> None:
        wait_for(lambda: self.rollout(uid)["phase"] == phase, pause=PAUSE, state=lambda: self.state(uid))

    def state(self, uid: str) -> str:
        """For the message of a failed wait: the rollout, its nodes, and what they wait for."""
        why = self.get(f"{ROLLOUTS}/{uid}/why")
        lines = [f"Rollout {uid}: {_waits(why)}"]
        for node, *outcome in self.outcomes(uid):
            lines.append(f"{node}: {outcome}: {_waits(self.get(f'{ROLLOUTS}/{uid}/nodes/{node}/why'))}")
        return "\n".join(lines)

    def operation(self, uid: str, node: str) -> Any:
        return self.get(f"{ROLLOUTS}/{uid}/nodes/{node}")

    def phases(self, uid: str) -> dict[str, str]:
        return {each["node"]: each["phase"] for each in self.get(f"{ROLLOUTS}/{uid}/nodes")["results"]}

    def outcomes(self, uid: str) -> list[tuple[str, str, str, str]]:
        """For the message of a failed assertion: what became of each node, and why."""
        nodes = self.get(f"{ROLLOUTS}/{uid}/nodes")["results"]
        return [(each["node"], each["phase"], each["reason"], each["message"]) for each in nodes]

    def end_of(self, uid: str) -> Any:
        """The rollout when it has ended."""
        return wait_for(
            lambda: (found := self.rollout(uid))["phase"] in FINAL and found,
            pause=PAUSE,
            state=lambda: self.state(uid),
        )

    def carry_out(self, version: int, action: str = "install", **fields: Any) -> Any:
        return self.end_of(self.start(version, action, **fields))

    def node(self, name: str) -> Any:
        return self.get(f"/v2/nodes/{name}")

    def wait_for_phase(self, name: str, phase: str) -> None:
        wait_for(lambda: self.node(name)["phase"] == phase, pause=PAUSE)

    def valkey(self, name: str, *words: str) -> Any:
        path = self.folder / "nodes" / name / "valkey.sock"
        with redis.Redis(unix_socket_path=str(path), decode_responses=True) as server:
            return server.execute_command(*words)

    def broker(self, *words: str) -> Any:
        """What the broker answers to a user with all rights. The relay's user may make one: the broker may have lost it."""
        path = str(self.folder / "broker" / "valkey.sock")
        password = (self.folder / "broker_relay_password").read_text()
        with redis.Redis(unix_socket_path=path, username="relay", password=password, driver_info=None) as relay:
            relay.execute_command("ACL", "SETUSER", "tests", "reset", "on", ">tests", "~*", "+@all")
        with redis.Redis(unix_socket_path=path, username="tests", password="tests") as server:
            return server.execute_command(*words)

    def broker_url(self) -> str:
        """The broker's URL with the user of the control plane."""
        password = (self.folder / "broker_modfleet_password").read_text()
        return f"redis+socket://modfleet:{password}@{self.folder}/broker/valkey.sock"

    def greeting(self, name: str) -> Any:
        """What GREET.HELLO answers on the node; empty where there is no such command, None where no server answers."""
        try:
            return self.valkey(name, "GREET.HELLO", "Ada")
        except redis.ResponseError:
            return ""
        except redis.ConnectionError:
            return None

    def greetings(self) -> list[Any]:
        return [self.greeting(name) for name in self.names]

    def files(self, name: str) -> list[str]:
        """All below the node's folder of modules, also what is hidden."""
        root = self.folder / "nodes" / name / "modules"
        return sorted(str(each.relative_to(root)) for each in root.rglob("*"))

    def refuse_to_load(self, *names: str) -> None:
        """From now on a picky module does not load there, and anywhere else again."""
        for name in self.names:
            flag = self.folder / "nodes" / name / "refuse"
            flag.touch() if name in names else flag.unlink(missing_ok=True)

    def is_fetching(self, name: str) -> bool:
        """Whether the node has begun to write a package."""
        return any((self.folder / "nodes" / name / "modules").rglob(".*.tmp"))

    def clear(self) -> None:
        """All nodes are online, and none has the sample."""
        self.refuse_to_load()
        for name in self.names:
            self.wait_for_phase(name, "online")
        versions = {each["version"] for name in self.names for each in self.node(name)["modules"]}
        for version in versions:
            self.carry_out(version, "remove", supersede=True, even_if_used=True)
        assert not any(self.files(name) for name in self.names)


def _waits(why: Any) -> str:
    return f"{why['phase']}, {why['summary']} It waits for {[each['text'] for each in why['waits_for']]}"


@contextmanager
def running_fleet(*, nodes: int = 3, environ: dict[str, str | None] | None = None) -> Iterator[Fleet]:
    """A cluster without a module. In the end it still runs, has written no error, and nothing of it is left."""
    folder = short_folder()
    up = Up(folder / "data", "--no-sample", "--nodes", str(nodes), output=folder, environ=environ)
    try:
        with (fleet := Fleet(up, nodes=nodes)).api:
            yield fleet
        assert up.process.poll() is None
        assert up.end() == 0
        assert up.errors.read_text() == ""
    finally:
        up.sweep()
        remove_folder(folder)


def short_folder() -> Path:
    """A path that leaves room for a socket's name."""
    return Path(tempfile.mkdtemp(prefix="mf-", dir="/tmp"))


def remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


#: Does not load where its server's folder has a file `refuse`.
PICKY = """
#include <unistd.h>
#define RedisModule_OnLoad greet_on_load
{greet}
#undef RedisModule_OnLoad
__attribute__((visibility("default"))) int RedisModule_OnLoad(Context *context, String **words, int count) {{
    return access("refuse", F_OK) == 0 ? ERR : greet_on_load(context, words, count);
}}
"""


def sample(folder: Path, version: int, *, extra_bytes: int = 0, picky: bool = False) -> Path:
    """A package of greet; `extra_bytes` of what cannot be compressed make its way to a node take a while."""
    if not extra_bytes and not picky:
        return build_sample(folder, version=version)
    source = SOURCE
    if picky:
        source = folder / "picky.c"
        source.write_text(PICKY.format(greet=SOURCE.read_text()))
    module = compile_module(source, folder / "greet.so", defines={"GREET_VERSION": str(version)})
    package = pack(module, sample_metadata(module, version=version), folder / f"greet-{version}.zip")
    if extra_bytes:
        with zipfile.ZipFile(package, "a", zipfile.ZIP_STORED) as archive:
            archive.writestr("deps/data.bin", os.urandom(extra_bytes))
    return package
