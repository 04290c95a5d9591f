"""Servers with their agents, each on what stands for a host of its own, in shards that tests make and hurt."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from modfleet.packing.loading import Loaded
from modfleet.packing.manifest import Binary, module_json
from modfleet.packing.write import pack
from modfleet.sample import compile_module
from tests.fleet import FINAL, PASSWORD, PAUSE, ROLLOUTS, ROOT, Fleet
from tests.ports import free_port
from tests.waiting import PATIENCE, wait_for

SOURCES = ROOT / "tests/modules"
#: Leads to this machine, and Modfleet does not know that: a loopback address would mean another server on each host.
ADDRESS = "0x7f.1"
#: How long a supervisor waits before it starts a server again, seconds, as `RestartSec` of a systemd unit.
RESTART_SECONDS = 0.1


@dataclass(eq=False)
class Machine:
    """A server, what starts it again as systemd does, and its agent. `host`: machines with the same one are one host."""

    name: str
    folder: Path
    binary: Path
    host: str = ""
    #: More lines of its configuration.
    extra: Sequence[str] = ()
    #: Settings of the agent.
    settings: dict[str, str] = field(default_factory=dict)
    #: More variables of the server.
    environ: dict[str, str] = field(default_factory=dict)
    #: The address by which others reach the server at its port. A proxy may listen there.
    reached: str = ADDRESS
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None
    agent: "subprocess.Popen[bytes] | None" = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _supervisor: threading.Thread | None = None

    @property
    def address(self) -> str:
        return f"{self.reached}:{self.port}"

    @property
    def socket(self) -> Path:
        return self.folder / "server.sock"

    @property
    def file(self) -> Path:
        return self.folder / "server.conf"

    @property
    def include(self) -> Path:
        return self.modules / "modfleet.conf"

    @property
    def modules(self) -> Path:
        return self.folder / "modules"

    # --- The server ---------------------------------------------------------------------------------------------------

    def start(self) -> "Machine":
        """Start the server, and start it again whenever it ends."""
        self.modules.mkdir(parents=True, exist_ok=True)
        if not self.file.exists():
            lines = [
                f"port {self.port}",
                f"unixsocket {self.socket}",
                f"dir {self.folder}",
                f"logfile {self.folder}/log",
                "enable-module-command local",
                "enable-debug-command local",
                "repl-diskless-sync-delay 0",
                f"replica-announce-ip {self.reached}",
                f"replica-announce-port {self.port}",
                "save 3600 1",
                *self.extra,
            ]
            if self.settings.get("MODFLEET_PERSISTENCE", "include") == "include":
                lines.append(f"include {self.modules}/*.conf")
            self.file.write_text("".join(f"{line}\n" for line in lines))
        self._stopping.clear()
        self.process = self._spawn()
        self._supervisor = threading.Thread(target=self._supervise)
        self._supervisor.start()
        wait_for(self.answers)
        return self

    def _spawn(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [self.binary, self.file],
            env={**os.environ, **self.environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _supervise(self) -> None:
        while True:
            assert self.process
            self.process.wait()
            if self._stopping.wait(RESTART_SECONDS):
                return
            self.process = self._spawn()

    def stop(self) -> None:
        self._stopping.set()
        assert self.process
        assert self._supervisor
        self.process.kill()
        self._supervisor.join()
        self.process.wait()

    def die(self, number: int) -> None:
        """The signal ends the server. Wait until it serves again."""
        run_id = self.run_id
        assert self.process
        self.process.send_signal(number)
        wait_for(lambda: self.run_id not in ("", run_id) and self.answers())

    def restart(self) -> None:
        """End the server, as a person does it, and wait until it serves again. Its replicas are in step before that."""
        run_id = self.run_id
        wait_for(self._shuts_down)
        wait_for(lambda: self.run_id not in ("", run_id) and self.answers())

    def _shuts_down(self) -> bool:
        """Return False if the server refuses: it writes its first AOF, at the latest since a full synchronization has ended."""
        wait_for(self._rewrites_no_aof)
        once = Retry(NoBackoff(), 0)  # a repeated SHUTDOWN would end the next process too
        with redis.Redis(unix_socket_path=str(self.socket), retry=once) as client:
            try:
                client.execute_command("SHUTDOWN", "SAVE", "NOW")
            except redis.ConnectionError:
                return True
            except redis.ResponseError:
                return False
        return True

    def _rewrites_no_aof(self) -> bool:
        found = self.info("persistence")
        return bool(found["aof_rewrite_in_progress"] == found["aof_rewrite_scheduled"] == 0)

    def call(self, *words: Any) -> Any:
        with self._connected() as client:
            return client.execute_command(*words)

    def call_each(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """The answers to many commands, which are sent at once."""
        with self._connected() as client, client.pipeline(transaction=False) as pipe:
            for words in commands:
                pipe.execute_command(*words)
            answers: list[Any] = pipe.execute()
        return answers

    def _connected(self) -> redis.Redis:
        # With information on the driver, the library looks for its own version, which takes longer than a call.
        return redis.Redis(unix_socket_path=str(self.socket), decode_responses=True, protocol=2, driver_info=None)

    def answers(self) -> bool:
        try:
            return bool(self.call("PING"))
        except (redis.ConnectionError, redis.ResponseError):  # loading
            return False

    def info(self, section: str) -> Any:
        return self.call("INFO", section)

    @property
    def run_id(self) -> str:
        """Names the server's process; empty while none answers."""
        try:
            return str(self.info("server")["run_id"])
        except redis.ConnectionError:
            return ""

    @property
    def unexpected_error_replies(self) -> int:
        return int(self.info("stats")["unexpected_error_replies"])

    def loaded(self) -> list[tuple[str, int]]:
        return sorted((each["name"], each["ver"]) for each in self.call("MODULE LIST") if each["name"] != "lua")

    def lines(self) -> list[str]:
        """The `loadmodule` lines of the main file and of the agent's file, without the directory."""
        texts = [each.read_text() for each in (self.file, self.include) if each.exists()]
        lines = "".join(texts).splitlines()
        return ["/".join(each.split("/")[-3:]) for each in lines if each.startswith("loadmodule")]

    def append_only(self, is_on: bool) -> None:  # a switch
        """Switch the append-only file on or off, now and for the next starts."""
        text = self.file.read_text().replace("appendonly yes\n", "")
        self.file.write_text("appendonly yes\n" + text if is_on else text)
        self.call("CONFIG", "SET", "appendonly", "yes" if is_on else "no")
        wait_for(self._rewrites_no_aof)

    def follow(self, master: "Machine | None") -> None:
        self.call("REPLICAOF", *(("NO", "ONE") if master is None else (master.reached, master.port)))

    def master_port(self) -> int:
        """0 for a master."""
        return int(self.info("replication").get("master_port", 0))

    def is_in_step(self, master: "Machine") -> bool:
        """Return True if it has all that the server at the top of its shard has executed."""
        mine, others = self.info("replication"), master.info("replication")
        is_up = mine.get("master_link_status", "up") == "up"
        return is_up and bool(mine["master_repl_offset"] == others["master_repl_offset"])

    # --- The agent ----------------------------------------------------------------------------------------------------

    def join(self, fleet: Fleet) -> None:
        """Start the agent, which joins if it has not yet."""
        token = self.folder / "token"
        if not token.exists():
            token.write_text(fleet.post("/v2/join-tokens", {"node": self.name}, status=201)["token"])
        given = {key: value for key, value in os.environ.items() if not key.startswith(("MODFLEET_", "DJANGO_"))}
        environ = {
            "MODFLEET_NODE": self.name,
            "MODFLEET_CONTROL_URL": fleet.url,
            "MODFLEET_SERVER_URL": f"unix://{self.socket}",
            "MODFLEET_MODULES_DIR": str(self.modules),
            "MODFLEET_JOURNAL_DIR": str(self.folder / "journal"),
            "MODFLEET_IDENTITY_FILE": str(self.folder / "identity.json"),
            "MODFLEET_HOST_ID": self.host or self.name,
        }
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", "modfleet", "agent", "run", "--token-file", str(token)],
                cwd=ROOT,
                env={**given, **environ, **self.settings},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def leave(self) -> None:
        """End the agent and all that it has started, as the machine's death would."""
        if self.agent is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.agent.pid, signal.SIGKILL)
            self.agent.wait()
            self.agent = None

    def files(self) -> dict[str, bytes]:
        """The files of its modules, by path."""
        return {
            str(each): each.read_bytes() for each in self.modules.rglob("*") if each.is_file() and each != self.include
        }


def online(fleet: Fleet) -> set[str]:
    """The names of the nodes that are online."""
    found = fleet.get("/v2/nodes", params={"limit": 1000})["results"]
    return {each["name"] for each in found if each["phase"] == "online"}


@contextmanager
def machines(fleet: Fleet, made: Sequence[Machine]) -> Iterator[Sequence[Machine]]:
    """They run, and their nodes are online, until the end."""
    try:
        for each in made:
            each.start()
            each.join(fleet)
        names = {each.name for each in made}
        wait_for(lambda: names <= online(fleet), pause=PAUSE)
        yield made
    finally:
        for each in made:
            each.leave()
        for each in made:
            if each.process is not None:
                each.stop()


@contextmanager
def stranger(master: Machine, folder: Path) -> Iterator[Machine]:
    """A replica of the server, without an agent and without modules."""
    made = Machine(folder.name, folder, master.binary).start()
    try:
        made.follow(master)
        yield made
    finally:
        made.stop()


@contextmanager
def sentinel(
    folder: Path, master: Machine, *, name: str = "sentinel", quorum: int = 1, port: int = 0
) -> Iterator[Machine]:
    """A Sentinel that watches the shard of this master, as `main`."""
    made = Machine(name, folder / name, master.binary, port=port or free_port())
    made.folder.mkdir()
    lines = [
        f"port {made.port}",
        f"unixsocket {made.socket}",
        f"dir {made.folder}",
        "sentinel resolve-hostnames yes",
        "sentinel announce-hostnames yes",
        f"sentinel monitor main {master.reached} {master.port} {quorum}",
    ]
    made.file.write_text("".join(f"{line}\n" for line in lines))
    words: list[str | Path] = [master.binary, made.file, "--sentinel"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(made.answers)
        made.call("SENTINEL", "DEBUG", "INFO-PERIOD", 500, "PUBLISH-PERIOD", 500)  # else it is 10 s late
        yield made
    finally:
        process.kill()
        process.wait()


def module(folder: Path, name: str, version: int, *commands: str, **defines: str) -> Path:
    """A package of tests/modules/<name>.c, without loading it. `commands`: its commands, whose first argument is a key."""
    built = compile_module(SOURCES / f"{name}.c", folder / f"{name}.so", defines={"VERSION": str(version), **defines})
    shown = tuple(
        {
            "command_name": each,
            "command_arity": -1,
            "first_key": 1,
            "last_key": 1,
            "step": 1,
            "flags": ["write", "fast", "module"],
        }
        for each in commands
    )
    loaded = Loaded(module_name=name, version=version, commands=shown, redis_version="7.0")
    binary = Binary(path=built, platform="linux/x86_64")
    document = module_json(binary, loaded=loaded, manifest={}, flags={}, dependencies=())
    return pack(built, document, folder / f"{name}-{version}.zip")


def upload(fleet: Fleet, package: Path) -> None:
    response = fleet.upload(package)
    assert response.status_code == 201, response.text


class Writer:
    """A client that writes through `writes.set` without a pause, from the start of the block to its end.

    It counts what was `done`, and what was `refused` after the first success.
    """

    def __init__(self, machine: Machine) -> None:
        self.done = 0
        self.refused: list[str] = []
        #: True if nothing was done after the first refusal.
        self.is_refused_to_the_end = True
        self._machine = machine
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(PATIENCE)

    def _write(self) -> None:
        with redis.Redis(
            unix_socket_path=str(self._machine.socket), client_name="writer", protocol=2, retry=Retry(NoBackoff(), 0)
        ) as client:
            while not self._ends.wait(0.0005):
                try:
                    client.execute_command("WRITES.SET", f"k{self.done}", self.done)
                    self.done += 1
                    self.is_refused_to_the_end = not self.refused
                except redis.RedisError as error:
                    if self.done:
                        self.refused.append(str(error))

    def wait_for_more(self) -> None:
        """Wait until it has written 100 keys more."""
        before = self.done
        wait_for(lambda: self.done >= before + 100)


@dataclass(frozen=True)
class Shard:
    """A master `a` with its replicas `b` and `c`, and `d`, a replica of `b`. `fleet` is where their agents belong."""

    fleet: Fleet
    machines: Sequence[Machine]

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.machines]

    def clear(self) -> None:
        """Make the shard what it is at first, without a module, and wait until Modfleet knows that."""
        for uid in self._unfinished():
            self.fleet.post(f"{ROLLOUTS}/{uid}/abort")
            self.fleet.end_of(uid)
        self.forget()
        a, b, c, d = self.machines
        for each, master in ((a, None), (b, a), (c, a), (d, b)):
            if each.master_port() != (master.port if master else 0):
                each.follow(master)
        wait_for(lambda: all(each.is_in_step(a) for each in (b, c, d)))
        places = {a.name: "", b.name: a.name, c.name: a.name, d.name: b.name}
        wait_for(lambda: self.masters() == places, pause=PAUSE)
        for name, version in {found for each in self.machines for found in each.loaded()}:
            self.carry_out("remove", name, version, even_if_used=True)
        assert [each.loaded() for each in self.machines] == [[]] * 4

    def forget(self) -> None:
        """Modfleet knows nothing of earlier restarts. A node that was restarted often recovers late: it does not fill the log."""
        for name in self.names:
            self.fleet.post(f"/v2/nodes/{name}/forget", status=200)
        wait_for(lambda: set(self.names) <= online(self.fleet), pause=PAUSE)

    def _unfinished(self) -> list[str]:
        found = self.fleet.get(ROLLOUTS, params={"limit": 100})["results"]
        return [each["uid"] for each in found if each["phase"] not in FINAL]

    def masters(self) -> dict[str, str]:
        """The master of each node, empty if it has none, as Modfleet knows it."""
        found = {each["name"]: each for each in self.fleet.get("/v2/nodes", params={"limit": 1000})["results"]}
        return {name: found[name]["master"] or "" for name in self.names}

    def start(self, action: str, name: str, version: int, **fields: Any) -> str:
        uid: str = self.fleet.post(ROLLOUTS, self.body(action, name, version, **fields))["uid"]
        return uid

    def body(self, action: str, name: str, version: int, **fields: Any) -> dict[str, Any]:
        strategy = {"settle_seconds": 0.1, **fields.pop("strategy", {})}
        body = {"action": action, "module_name": name, "version": version, "strategy": strategy, "nodes": self.names}
        return {**body, **fields}

    def carry_out(self, action: str, name: str, version: int, **fields: Any) -> str:
        """uid of a rollout that has succeeded."""
        return self.succeeded(self.start(action, name, version, **fields))

    def succeeded(self, uid: str) -> str:
        ended = {*FINAL, "paused"}  # a person would have to resume it
        wait_for(lambda: self.fleet.rollout(uid)["phase"] in ended, pause=PAUSE, state=lambda: self.fleet.state(uid))
        assert self.fleet.rollout(uid)["phase"] == "succeeded", self.fleet.state(uid)
        return uid

    def turns(self, uid: str) -> list[str]:
        """The nodes in the order of their turns. No two of them were released at a time."""
        assert not self.overlaps(uid, *self.names)
        return [node for kind, node in self._changes(uid) if kind == "operation.finished.v1"]

    def overlaps(self, uid: str, *nodes: str) -> list[str]:
        """Those of the nodes that were released before the one before them had ended."""
        found: list[str] = []
        released: set[str] = set()
        for kind, node in self._changes(uid):
            if node not in nodes:
                continue
            if kind == "operation.released.v1":
                found += [node] if released else []
                released.add(node)
            else:
                released.discard(node)
        return found

    def _changes(self, uid: str) -> Iterator[tuple[str, str]]:
        """What the log has about turns: the type of each event, and its node."""
        kinds = {"operation.released.v1", "operation.given_back.v1", "operation.finished.v1"}
        options = {"type": "operation.", "after": self.fleet.rollout(uid)["created_at"], "limit": 1000}
        found = self.fleet.get("/v2/events", params=options)["results"]
        for each in sorted(found, key=lambda each: each["position"]):
            if each["data"]["rollout"] == uid and each["type"] in kinds:
                yield each["type"], each["data"]["node"]


def run(fleet: Fleet, *words: str) -> str:
    """What the command line of an operator prints."""
    given = {key: value for key, value in os.environ.items() if not key.startswith(("MODFLEET_", "DJANGO_"))}
    person = {"MODFLEET_URL": fleet.url, "MODFLEET_USER": "admin", "MODFLEET_PASSWORD": PASSWORD}
    done = subprocess.run(
        [sys.executable, "-m", "modfleet", *words], cwd=ROOT, env=given | person, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
