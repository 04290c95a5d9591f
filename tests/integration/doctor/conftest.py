"""A healthy host: a real server with its least-privilege user, a real broker with the node's user, and a control plane."""

import datetime as dt
import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.backoff import NoBackoff
from redis.retry import Retry

from rollout.agent.control_plane.identity import Identity, write_identity
from rollout.agent.control_plane.rotation import new_credentials
from rollout.agent.doctor import run_doctor
from rollout.agent.doctor.acl import Level, acl_line
from rollout.agent.inspection.host_files import ROOT
from rollout.agent.settings import AgentSettings, settings_from
from rollout.delivery.broker_acl import node_line
from rollout.messages import Finding
from rollout.signing import ControlSecret
from tests.integration.agent.conftest import VALKEY, short_folder
from tests.waiting import wait_for

__all__ = ["short_folder"]

UNIT = "redis-server.service"


@dataclass
class Running:
    """A real server with a configuration file. `acl` are the lines of its users, besides one for the tests."""

    folder: Path
    binary: Path
    lines: list[str] = field(default_factory=list)
    acl: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def socket(self) -> Path:
        return self.folder / "s"

    @property
    def config(self) -> Path:
        return self.folder / "redis.conf"

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "users.acl").write_text("\n".join([*self.acl, "user op on >o ~* &* +@all"]) + "\n")
        basics = [f"unixsocket {self.socket}", f"port {self.port}", 'save ""', f"dir {self.folder}"]
        self.config.write_text("\n".join([*basics, f"aclfile {self.folder}/users.acl", *self.lines]) + "\n")
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen([self.binary, self.config, *self.words], stdout=log, stderr=log)
        wait_for(self.answers)

    def client(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.socket),
            username="op",
            password="o",
            decode_responses=True,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )

    def answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


class Handler(http.server.BaseHTTPRequestHandler):
    """A control plane's probe. `ahead`: of this host's clock, seconds."""

    status, location, ahead = 200, "", 0.0

    def do_GET(self) -> None:
        self.send_response(self.status)
        if self.location:
            self.send_header("Location", self.location)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.ahead)
        return super().date_time_string(now.timestamp())

    def log_message(self, *words: Any) -> None:
        pass


@dataclass
class Site:
    """One host. A test changes it, then calls `start`, then `examine`."""

    folder: Path
    server: Running
    broker: Running
    control: http.server.ThreadingHTTPServer
    handler: type[Handler]
    environ: dict[str, str]
    #: Files of the host that stand for the real ones, by path; `{pid}` is the server's.
    fakes: dict[str, str] = field(default_factory=dict)
    settings_class: type[AgentSettings] | None = None
    more: dict[str, Any] = field(default_factory=dict)
    #: Closed at the end.
    closes: list[socket.socket] = field(default_factory=list)
    #: Called when broker and server run.
    then: Callable[["Site"], object] = lambda _: None

    @property
    def modules(self) -> Path:
        return self.folder / "modules"

    def start(self) -> None:
        self.broker.start()
        self.server.start()
        self.then(self)

    @property
    def root(self) -> Path:
        """The host's file system: the real one, but for the fakes."""
        root = self.folder / "root"
        process = root / f"proc/{self.server.pid}"
        process.mkdir(parents=True, exist_ok=True)
        for name in ("cgroup", "cmdline", "status", "mountinfo", "root", "exe", "stat"):
            _link(process / name, Path(f"/proc/{self.server.pid}/{name}"))
        _link(root / "proc/self/mountinfo", Path("/proc/self/mountinfo"))
        _write(root, {path.format(pid=self.server.pid): text for path, text in self.fakes.items()})
        return root

    def examine(self, *, root: Path | None = None) -> dict[str, Finding]:
        """The doctor's findings, by check."""
        settings = settings_from(self.environ)
        if self.settings_class:
            given = {name: getattr(settings, name) for name in AgentSettings.__slots__}
            settings = self.settings_class(**{**given, **self.more})
        return {each.check: each for each in run_doctor(settings, root or self.root)}

    def examine_offline(self) -> dict[str, Finding]:
        """The same without broker and server."""
        self.environ |= {"MODFLEET_BROKER_URL": "redis://127.0.0.1:1", "MODFLEET_SERVER_URL": "redis://127.0.0.1:2"}
        root = self.folder / "root"
        _link(root / "proc/self/mountinfo", Path("/proc/self/mountinfo"))
        _write(root, {path: text for path, text in self.fakes.items() if "{pid}" not in path})
        return self.examine(root=root)

    def examine_here(self) -> dict[str, Finding]:
        """The same, with the real file system."""
        return self.examine(root=ROOT)


def _write(root: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)


def _link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink() and not path.exists():
        path.symlink_to(to)


def identity(node: str) -> Identity:
    """Return a new identity with the password `b`."""
    credentials = replace(new_credentials(), broker_password="b")
    return Identity(
        node=node, credentials=credentials, control_keys=(ControlSecret("the secret key of the control plane").public,)
    )


@pytest.fixture
def binary() -> Path:
    return VALKEY


@pytest.fixture
def site(short_folder: Path, binary: Path) -> Iterator[Site]:
    modules, journal = short_folder / "modules", short_folder / "journal"
    modules.mkdir()
    modules.chmod(0o755)
    journal.mkdir(mode=0o700)
    (short_folder / "password").write_text("p\n")
    handler = type("Probe", (Handler,), {})
    control = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server = Running(
        short_folder / "s",
        binary,
        lines=["enable-module-command local", f"include {modules}/*.conf"],
        acl=[acl_line(Level.LOAD, "agent", "p")],
    )
    broker = Running(short_folder / "b", VALKEY, acl=[node_line("n1", "b"), "user default off"])
    file = short_folder / "state/identity.json"
    file.parent.mkdir()
    write_identity(file, identity("n1"))
    environ = {
        "MODFLEET_NODE": "n1",
        "MODFLEET_IDENTITY_FILE": str(file),
        "MODFLEET_BROKER_URL": f"redis+socket://{broker.socket}",
        "MODFLEET_CONTROL_URL": f"http://127.0.0.1:{control.server_port}",
        "MODFLEET_SERVER_URL": f"unix://{server.socket}",
        "MODFLEET_SERVER_USER": "agent",
        "MODFLEET_SERVER_PASSWORD_FILE": str(short_folder / "password"),
        "MODFLEET_MODULES_DIR": str(modules),
        "MODFLEET_JOURNAL_DIR": str(journal),
    }
    fakes = {
        "/proc/{pid}/cgroup": f"0::/system.slice/{UNIT}\n",
        f"/usr/lib/systemd/system/{UNIT}": f"[Service]\nExecStart=/usr/bin/redis-server {server.config}\n",
    }
    site = Site(short_folder, server, broker, control, handler, environ, fakes)
    thread = threading.Thread(target=control.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    for each in site.closes:
        each.close()
    control.shutdown()
    control.server_close()
    thread.join()
    server.stop()
    broker.stop()


def certificate(folder: Path, *, days: int, name: str = "localhost") -> Path:
    """A self-signed certificate with its key, in one file. It is valid for `days` more days."""
    key = ec.generate_private_key(ec.SECP256R1())
    now, subject = dt.datetime.now(dt.UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=400))
        .not_valid_after(now + dt.timedelta(days=days, hours=1 if days > 0 else 0))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}-{days}.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def use_https(site: Site, file: Path) -> None:
    """Serve the control plane with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    site.control.socket = context.wrap_socket(site.control.socket, server_side=True)
    site.environ["MODFLEET_CONTROL_URL"] = f"https://localhost:{site.control.server_port}"
