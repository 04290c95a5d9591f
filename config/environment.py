"""The control plane's settings, read from the environment once. The comment above each field is its text in the docs."""

import math
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import dj_database_url
import msgspec

import decoding
from rollout import tls

PREFIX = "MODFLEET_"
SHORTEST_TOKEN = 16
#: URL schemes that are accepted.
BROKERS = ("redis", "rediss", "redis+socket")
POSTGRESQL = ("postgres", "postgresql")
#: These must be more than 0, or nothing works. All other numbers may be 0.
POSITIVE = (
    "database_pool_size",
    "database_pool_seconds",
    "database_lock_seconds",
    "max_upload_bytes",
    "max_unpacked_bytes",
    "download_seconds",
    "resend_seconds",
    "anonymous_body_seconds",
    "slow_client_seconds",
    "threads",
)
FOLDER_STORAGE = "django.core.files.storage.FileSystemStorage"


class SettingsError(ValueError):
    """An environment variable is missing or has a value that cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Each field is read from `MODFLEET_<FIELD>`, or from the file that `MODFLEET_<FIELD>_FILE` names.

    `node_name` is also read from `NODE_NAME`.
    """

    #: Directory for everything that the control plane keeps itself: the SQLite database, uploads, the generated secret
    #: key.
    data_dir: str = ".modfleet"
    #: `sqlite:///path` or `postgresql://user:password@host/name`. Empty: SQLite in the data directory.
    database_url: str = ""
    #: PostgreSQL: number of connections that the requests of one API process share, at least 1. The process has one
    #: more connection, which listens.
    database_pool_size: int = 16
    #: PostgreSQL: longest time that a request waits for one of those connections, seconds. After that it is answered
    #: with 503.
    database_pool_seconds: float = 10.0
    #: Longest time that a statement waits for a lock in the database, seconds. After that the request is answered with
    #: 503. Clients give up after 30 s.
    database_lock_seconds: float = 20.0
    #: Redis or Valkey for the queues. It need not persist anything, and must never load modules.
    broker_url: str = "redis://127.0.0.1:6379/0"
    #: The broker's URL with the user that administers it. Set it only for the relay, which creates the users of nodes
    #: with it. Empty: the broker's users are managed in another way.
    broker_admin_url: str = ""
    #: The broker's URL as agents reach it, without a user. Empty: `MODFLEET_BROKER_URL` without its user.
    agent_broker_url: str = ""
    #: Signs sessions, tokens, download links and the commands to nodes. Empty: generated once and kept in the data
    #: directory.
    secret_key: str = ""
    #: Former secret keys that are still valid, separated by spaces, while nodes and browsers learn the new one.
    secret_key_fallbacks: str = ""
    #: PEM file with the certificate authority of `MODFLEET_PUBLIC_URL`, if it is a private one: nodes get it when they
    #: join.
    control_ca: str = ""
    #: PEM file with the certificate authority of the broker, if it is a private one: nodes get it when they join.
    broker_ca: str = ""
    #: URL at which nodes reach this API. Download links use it, never a request's Host header.
    public_url: str = "http://127.0.0.1:8000"
    #: Host names that requests may use, separated by commas. `*`: any.
    allowed_hosts: str = "localhost,127.0.0.1,[::1],.localhost"
    #: Node that `/v2/local/...` means if no node has reported the request's host name as its own.
    node_name: str = ""
    #: Class of the storage for packages, as an import path. Any storage of django-storages works.
    storage_backend: str = FOLDER_STORAGE
    #: Keyword arguments of that class, as a JSON object. Empty: the class's defaults; for the default class, a
    #: directory in the data directory.
    storage_options: str = ""
    #: Largest package accepted, bytes.
    max_upload_bytes: int = 500_000_000
    #: Largest total size of a package's unpacked files, bytes.
    max_unpacked_bytes: int = 2_000_000_000
    #: How long a download link works, seconds.
    download_seconds: float = 600.0
    #: How long the redacted lines of servers' logs that nodes send with a failure are kept, days.
    failure_log_days: float = 14.0
    #: Shortest wait before a command without an answer is sent again, seconds. The wait doubles each time.
    resend_seconds: float = 5.0
    #: Longest time that a local upload waits for its node, seconds. Clients give up after 30 s.
    local_wait_seconds: float = 25.0
    #: Failed logins per minute with one login from one client address. After that many, the password is not checked:
    #: 429 with `Retry-After`. A user who logged in within the last minute can still log in, and so can the same user
    #: from any other address. 0: no limit. This limit and the limits below are counted in the memory of each process: N
    #: API processes allow up to N times as many, and a restart starts from 0.
    failed_logins_per_minute: int = 10
    #: Failed logins per minute from one client address, with all logins together. Set it above what an office behind
    #: one address needs. 0: no limit.
    failed_logins_per_address_per_minute: int = 100
    #: Uploads of packages per minute by one user, counted in each process. 0: no limit.
    uploads_per_minute: int = 600
    #: Requests to the API per minute by one user, or from one client address without credentials, counted in each
    #: process. That many may come at once; after that they are allowed at an even rate. 0: no limit.
    requests_per_minute: int = 6_000
    #: Number of bodies without valid credentials that may arrive at once in each process, beyond the 64 KiB that arrive
    #: within 2 s. One more is refused: 429.
    anonymous_bodies: int = 32
    #: Longest time for each of those bodies, seconds. A slower body is refused: 408.
    anonymous_body_seconds: float = 10.0
    #: Number of bodies of one user, with valid credentials, that may arrive at once in each process. One more is
    #: refused: 429.
    bodies_per_user: int = 64
    #: Lowest rate of a body with valid credentials, bytes per second, as the average over
    #: `MODFLEET_SLOW_CLIENT_SECONDS`. A slower body is refused: 408.
    body_bytes_per_second: int = 1_000
    #: Seconds over which that rate is measured. A client that receives nothing of its answer for this time is
    #: disconnected.
    slow_client_seconds: float = 30.0
    #: Number of requests of one user that may wait for a change at once in each process (`?wait`, event streams, local
    #: uploads). One more is refused: 429. Keep it below the number of threads.
    waiting_requests_per_user: int = 500
    #: The same for all users together.
    waiting_requests: int = 512
    #: Number of requests that one API process works on at once, each in a thread. More requests wait.
    threads: int = 576
    #: `host:port` of a listener for `/livez` and `/readyz` only. It answers even if the API is busy. Empty: no such
    #: listener.
    probe_address: str = ""
    #: Number of proxies in front of the API. Each adds the address of its caller to `X-Forwarded-For`, so the client's
    #: address is that many entries from the right. 0: the header is ignored, and the client is the one that connects.
    trusted_proxies: int = 0
    #: Show errors in the browser. Never in production.
    debug: bool = False
    #: Serve over HTTPS only: secure cookies and HSTS.
    https: bool = False
    #: Accept uploads of modules. `PUT /v1/cluster` overrides this setting.
    allow_modules_upload: bool = True
    #: `DEBUG`, `INFO`, `WARNING` or `ERROR`.
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    #: `line` for people; `json` for programs, with one object per line.
    log_format: Literal["line", "json"] = "line"
    #: File to which the relay adds the position and hash of the newest event, at its start and every hour, for
    #: `verify_log --heads`. Empty: `log-heads` in the data directory. Copy it to another host.
    log_heads_file: str = ""
    #: Token that Prometheus sends as `Authorization: Bearer` to read `/metrics`; it allows nothing else. At least 16
    #: characters. Empty: only a user who may view the cluster can read `/metrics`.
    metrics_token: str = field(default="", repr=False)

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir).absolute()

    @property
    def log_heads_path(self) -> Path:
        return Path(self.log_heads_file).absolute() if self.log_heads_file else self.data_path / "log-heads"


def read_environment(environ: Mapping[str, str] = os.environ) -> Environment:
    """Return the settings in `environ`. Raises: `SettingsError` that names the variable."""
    given = {
        each.name: value
        for each in fields(Environment)
        if (value := given_value(PREFIX + each.name.upper(), environ)) is not None
    }
    if "NODE_NAME" in environ:
        given.setdefault("node_name", environ["NODE_NAME"])
    for name, value in given.items():
        try:
            decoding.convert({name: value}, Environment, strict=False)
        except msgspec.ValidationError as error:
            variable = PREFIX + name.upper()
            shown = f"{variable}_FILE" if environ.get(f"{variable}_FILE") else f"{variable}={value}"
            raise SettingsError(f"{shown}: {error}") from error
    read = decoding.convert(given, Environment, strict=False)
    for name, wrong in _wrong(read):
        raise SettingsError(f"{PREFIX}{name.upper()}: {wrong}")
    return read


def _wrong(environment: Environment) -> Iterator[tuple[str, str]]:
    """Return the settings that cannot be used, each with a requirement. No value is shown: some contain passwords."""
    for each in fields(environment):
        value = getattr(environment, each.name)
        if each.type in {int, float} and not (math.isfinite(value) and value >= 0):
            yield each.name, "must be a number, 0 or more"
        elif each.name in POSITIVE and value <= 0:
            yield each.name, "must be more than 0"
    if not _is_base_url(environment.public_url):
        yield "public_url", "must be http(s)://HOST[:PORT], the address at which nodes reach the API"
    if not _has_scheme(environment.broker_url, BROKERS):
        yield (
            "broker_url",
            "must be redis://HOST:PORT/0, rediss://HOST:PORT/0 or redis+socket:///PATH of a Redis or Valkey",
        )
    for name in ("broker_admin_url", "agent_broker_url"):
        if getattr(environment, name) and not _has_scheme(getattr(environment, name), BROKERS):
            yield name, "must be redis://HOST:PORT/0, rediss://HOST:PORT/0 or redis+socket:///PATH of the broker"
    if environment.control_ca and (reason := tls.unusable_authority(Path(environment.control_ca))):
        yield "control_ca", f"must be a PEM file of a certificate authority: {reason}"
    if environment.broker_ca and (wrong := _authority_is_wrong(environment)):
        yield "broker_ca", wrong
    if environment.database_url and _database_is_wrong(environment.database_url):
        yield "database_url", "must be postgresql://USER:PASSWORD@HOST/NAME or sqlite:///PATH"
    if environment.storage_options and _json_object(environment.storage_options) is None:
        yield "storage_options", 'must be a JSON object, such as {"bucket_name": "modfleet"}'
    if environment.probe_address and not re.fullmatch(r".+:\d{1,5}", environment.probe_address):
        yield "probe_address", "must be HOST:PORT"
    if 0 < len(environment.metrics_token) < SHORTEST_TOKEN:
        yield "metrics_token", f"must have at least {SHORTEST_TOKEN} characters"


def _has_scheme(url: str, schemes: Collection[str]) -> bool:
    """Return True if the URL has one of the schemes, a host or a path, and a port that is a number."""
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname or parts.path.strip("/")) and parts.port != 0
    except ValueError:
        return False


def _is_base_url(url: str) -> bool:
    parts = urlsplit(url) if _has_scheme(url, ("http", "https")) else None
    return bool(parts and parts.hostname and not (parts.username or parts.query or parts.fragment))


def _authority_is_wrong(environment: Environment) -> str | None:
    if not tls.is_secured(environment.broker_url):
        return "needs a broker URL that begins with rediss://"
    reason = tls.unusable_authority(Path(environment.broker_ca))
    return reason and f"must be the path of a PEM file ({environment.broker_ca}: {reason})"


def broker_url(environment: Environment) -> str:
    """Return the URL of the broker, which also says which certificates to trust."""
    ca = Path(environment.broker_ca).absolute() if environment.broker_ca else None
    return tls.secured(environment.broker_url, ca=ca)


def _database_is_wrong(url: str) -> bool:
    if url.startswith("sqlite:"):
        return not url.startswith("sqlite:///") or url == "sqlite:///"
    return not _has_scheme(url, POSTGRESQL) or not urlsplit(url).path.strip("/")


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        return decoding.decode(text, dict[str, Any])
    except msgspec.MsgspecError:
        return None


def given_value(variable: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the value of `variable`, or the content of the file that `<variable>_FILE` names, without its last line end.

    None if neither is set. Use files for secrets: each child process inherits the environment, and users who can inspect
    the process see it. Raises: `SettingsError` if both are set, or the file cannot be read.
    """
    path = environ.get(f"{variable}_FILE")
    if not path:
        return environ.get(variable)
    if variable in environ:
        raise SettingsError(f"{variable} and {variable}_FILE are both set: set only one")
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}_FILE={path} cannot be read: {error}") from error


def package_storage(environment: Environment) -> dict[str, Any]:
    """Return Django's settings for the storage of packages."""
    options = _json_object(environment.storage_options) or {}
    if not options and environment.storage_backend == FOLDER_STORAGE:
        options = {"location": str(environment.data_path / "artifacts")}
    return {"BACKEND": environment.storage_backend, "OPTIONS": options}


def database(environment: Environment) -> dict[str, Any]:
    """Return Django's settings for the database."""
    url = environment.database_url or f"sqlite:///{quote(str(environment.data_path / 'modfleet.sqlite3'))}"
    if url.startswith("sqlite:"):
        options: dict[str, Any] = {
            # A transaction that reads first and writes later fails at once when another one wrote in between.
            "transaction_mode": "IMMEDIATE",
            "timeout": environment.database_lock_seconds,
            # recursive_triggers: the log's triggers also refuse what REPLACE deletes.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA recursive_triggers=ON;",
        }
        return {**dj_database_url.parse(url, conn_max_age=600, conn_health_checks=True), "OPTIONS": options}
    settings: dict[str, Any] = {**dj_database_url.parse(url, conn_max_age=600, conn_health_checks=True)}
    given = settings.get("OPTIONS", {})
    lock_timeout = f"-c lock_timeout={round(environment.database_lock_seconds * 1000)}"
    startup = f"{lock_timeout} {given.get('options', '')}".rstrip()
    return {**settings, "OPTIONS": {"connect_timeout": 5, **given, "options": startup}}


def pooled(database: Mapping[str, Any], environment: Environment) -> dict[str, Any]:
    """Return the database settings for a process with more threads than the database accepts connections.

    SQLite needs no pool.
    """
    if database["ENGINE"] != "django.db.backends.postgresql":
        return {**database}
    pool = {
        "min_size": 0,
        "max_size": environment.database_pool_size,
        "timeout": environment.database_pool_seconds,
        # After that the next request tries again at once: the pool itself would double its waits.
        "reconnect_timeout": 1.0,
    }
    # A thread returns its connection to the pool, whose connections stay open.
    return {**database, "CONN_MAX_AGE": 0, "OPTIONS": {**database["OPTIONS"], "pool": pool}}


def private_files(environment: Environment) -> tuple[Path, ...]:
    """Return the paths of files with secrets, in the data directory or where a setting says. Some may not exist."""
    kept = (environment.data_path / "secret_key", environment.log_heads_path)
    settings = database(environment)
    if settings["ENGINE"] != "django.db.backends.sqlite3":
        return kept
    return (*kept, *(Path(f"{settings['NAME']}{suffix}").absolute() for suffix in ("", "-wal", "-shm", "-journal")))


#: The data directory and the secret key are made if they are missing.
_makes_files = True


def make_nothing() -> None:
    """From now on, make no data directory and no secret key: a command that only reads leaves nothing behind."""
    global _makes_files  # noqa: PLW0603  # Django reads the settings once, without arguments
    _makes_files = False


def make_data_directory(environment: Environment) -> None:
    """Make the data directory, for its owner only, if the secret key or SQLite needs it. Raises: `SettingsError`."""
    if not _makes_files or (environment.secret_key and environment.database_url):
        return
    try:
        environment.data_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"{PREFIX}DATA_DIR={environment.data_dir}: cannot make the directory ({error.strerror}); "
            "set it to a directory that you may write to"
        ) from error


def secret_key(environment: Environment) -> str:
    """Return the secret key that is set, or else the key in the data directory.

    That key is made at the first start; only its owner may read it. Raises: `SettingsError`.
    """
    if environment.secret_key:
        return environment.secret_key
    make_data_directory(environment)
    path = environment.data_path / "secret_key"
    if not _makes_files and not path.exists():
        return secrets.token_urlsafe(50)  # a command that only reads signs nothing
    try:
        if not path.exists():
            # The file is complete or missing: services that start together read the key that the first of them wrote.
            with NamedTemporaryFile("w", dir=path.parent) as file:  # readable by its owner only
                file.write(secrets.token_urlsafe(50))
                file.flush()
                with suppress(FileExistsError):
                    os.link(file.name, path)
        return path.read_text()
    except OSError as error:
        raise SettingsError(
            f"{PREFIX}DATA_DIR={environment.data_dir}: cannot read or make the secret key in it ({error.strerror})"
        ) from error
