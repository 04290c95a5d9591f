"""The control plane's settings: read from the environment once, typed, each with its meaning beside it."""

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

PREFIX = "MODFLEET_"
SHORTEST_TOKEN = 16
#: How each URL may begin.
BROKERS = ("redis", "rediss", "redis+socket")
POSTGRESQL = ("postgres", "postgresql")
#: With 0 of these nothing works; all other numbers may be 0.
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
    """A field `name` is read from `MODFLEET_<NAME>`, or from the file that `MODFLEET_<NAME>_FILE` names.

    `node_name` is read from `NODE_NAME` too.
    """

    #: Folder of everything the control plane keeps itself: the SQLite database, uploads, the generated secret key.
    data_dir: str = ".modfleet"
    #: `sqlite:///path` or `postgresql://user:password@host/name`; empty: SQLite in the data folder.
    database_url: str = ""
    #: PostgreSQL: how many connections the requests of an API process share, at least 1; beside them it has one that
    #: listens.
    database_pool_size: int = 16
    #: PostgreSQL: longest a request waits for one of those connections, seconds; then it is answered 503.
    database_pool_seconds: float = 10.0
    #: Longest a statement waits for a lock in the database, seconds; then the request is answered 503. Clients give up
    #: at 30.
    database_lock_seconds: float = 20.0
    #: Redis or Valkey that carries the queues; it need not persist anything, and must never hold modules.
    broker_url: str = "redis://127.0.0.1:6379/0"
    #: Signs sessions, tokens and download links; empty: generated once and kept in the data folder.
    secret_key: str = ""
    #: Where nodes reach this API; download links are built on it, never on a request's Host header.
    public_url: str = "http://127.0.0.1:8000"
    #: Host names that requests may name, comma-separated; `*` for any.
    allowed_hosts: str = "localhost,127.0.0.1,[::1],.localhost"
    #: Node that `/v2/local/...` means when no node has reported the request's host name as its own.
    node_name: str = ""
    #: Class of the storage of packages, by its import path: any of django-storages works.
    storage_backend: str = FOLDER_STORAGE
    #: Keyword arguments of that class, a JSON object; empty: its defaults, and for the default class a folder in the
    #: data folder.
    storage_options: str = ""
    #: Largest package accepted, bytes.
    max_upload_bytes: int = 500_000_000
    #: Largest sum of the sizes of a package's unpacked files, bytes.
    max_unpacked_bytes: int = 2_000_000_000
    #: How long a download link works, seconds.
    download_seconds: float = 600.0
    #: Shortest wait before a command that brought no answer is sent again, seconds; doubled each time.
    resend_seconds: float = 5.0
    #: Longest a local upload waits for its node, seconds; clients give up at 30.
    local_wait_seconds: float = 25.0
    #: Failed logins a minute with one login from one client address, after which the password is not looked at: 429
    #: with `Retry-After`. Who has logged in within the last minute is let in still, and so is the same account from any
    #: other address. 0: no limit. This limit and those below count in the memory of each process: with N processes of
    #: the API up to N times as many pass, and a restart begins anew.
    failed_logins_per_minute: int = 10
    #: The same for all logins together from one client address; above what an office behind one address needs. 0: no
    #: limit.
    failed_logins_per_address_per_minute: int = 100
    #: Uploads of packages a minute by one user; counted in each process. 0: no limit.
    uploads_per_minute: int = 600
    #: Requests to the API a minute by one user, or from one client address without credentials; counted in each
    #: process. As many may come at once, then they are let in evenly. 0: no limit.
    requests_per_minute: int = 6_000
    #: How many bodies of requests without valid credentials may be waited for at once, in each process, beyond the 64 KiB
    #: that come within 2 s. One more is refused: 429.
    anonymous_bodies: int = 32
    #: Seconds after which each of those has to be whole, or is refused: 408.
    anonymous_body_seconds: float = 10.0
    #: How many bodies of one user, with valid credentials, may be waited for at once, in each process. One more is
    #: refused: 429.
    bodies_per_user: int = 64
    #: Least rate of a body that comes with valid credentials, bytes a second on the average of
    #: `MODFLEET_SLOW_CLIENT_SECONDS`; a slower one is refused: 408.
    body_bytes_per_second: int = 1_000
    #: Seconds over which that rate is taken. A client that takes nothing of its answer for so long is cut off.
    slow_client_seconds: float = 30.0
    #: How many requests that wait for a change (`?wait`, event streams, local uploads) one user may have at once, in each
    #: process. One more is refused: 429. Keep it below the number of threads.
    waiting_requests_per_user: int = 500
    #: The same for all users together.
    waiting_requests: int = 512
    #: How many requests one process of the API works on at once, each in a thread; further ones wait in line.
    threads: int = 576
    #: `host:port` of a listener for `/livez` and `/readyz` alone, which answers while the API's own is busy. Empty: none.
    probe_address: str = ""
    #: How many proxies stand before the API, each adding to `X-Forwarded-For` the address that called it: that many
    #: entries from the right stands the client's. 0: the header is ignored, and the client is who connects.
    trusted_proxies: int = 0
    #: Show errors in the browser. Never in production.
    debug: bool = False
    #: Serve over HTTPS only: secure cookies and HSTS.
    https: bool = False
    #: Accept uploads before `PUT /v1/cluster` has said otherwise.
    allow_modules_upload: bool = True
    #: `DEBUG`, `INFO`, `WARNING` or `ERROR`.
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    #: `line` for people, or `json`: an object on each line, for programs.
    log_format: Literal["line", "json"] = "line"
    #: File to which the relay adds position and hash of the newest event at its start and every hour, for
    #: `verify_log --heads`; empty: `log-heads` in the data folder. Copy it to another host.
    log_heads_file: str = ""
    #: What Prometheus may send as `Authorization: Bearer` to read `/metrics`, and nothing else; at least 16 characters.
    #: Empty: only a user who may view the cluster reads it.
    metrics_token: str = field(default="", repr=False)

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir).absolute()

    @property
    def log_heads_path(self) -> Path:
        return Path(self.log_heads_file).absolute() if self.log_heads_file else self.data_path / "log-heads"


def read_environment(environ: Mapping[str, str] = os.environ) -> Environment:
    """Raises: `SettingsError` that names the variable."""
    given = {
        each.name: value
        for each in fields(Environment)
        if (value := given_value(PREFIX + each.name.upper(), environ)) is not None
    }
    if "NODE_NAME" in environ:
        given.setdefault("node_name", environ["NODE_NAME"])
    for name, value in given.items():
        try:
            msgspec.convert({name: value}, Environment, strict=False)
        except msgspec.ValidationError as error:
            variable = PREFIX + name.upper()
            shown = f"{variable}_FILE" if environ.get(f"{variable}_FILE") else f"{variable}={value}"
            raise SettingsError(f"{shown}: {error}") from error
    read = msgspec.convert(given, Environment, strict=False)
    for name, wrong in _wrong(read):
        raise SettingsError(f"{PREFIX}{name.upper()}: {wrong}")
    return read


def _wrong(environment: Environment) -> Iterator[tuple[str, str]]:
    """Settings that cannot be used, each with what it must be. No value is shown: some hold passwords."""
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
    if environment.database_url and _database_is_wrong(environment.database_url):
        yield "database_url", "must be postgresql://USER:PASSWORD@HOST/NAME or sqlite:///PATH"
    if environment.storage_options and _json_object(environment.storage_options) is None:
        yield "storage_options", 'must be a JSON object, such as {"bucket_name": "modfleet"}'
    if environment.probe_address and not re.fullmatch(r".+:\d{1,5}", environment.probe_address):
        yield "probe_address", "must be HOST:PORT"
    if 0 < len(environment.metrics_token) < SHORTEST_TOKEN:
        yield "metrics_token", f"must have at least {SHORTEST_TOKEN} characters"


def _has_scheme(url: str, schemes: Collection[str]) -> bool:
    """Whether the URL has one of them, a host or a path, and a port that is a number."""
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname or parts.path.strip("/")) and parts.port != 0
    except ValueError:
        return False


def _is_base_url(url: str) -> bool:
    parts = urlsplit(url) if _has_scheme(url, ("http", "https")) else None
    return bool(parts and parts.hostname and not (parts.username or parts.query or parts.fragment))


def _database_is_wrong(url: str) -> bool:
    if url.startswith("sqlite:"):
        return not url.startswith("sqlite:///") or url == "sqlite:///"
    return not _has_scheme(url, POSTGRESQL) or not urlsplit(url).path.strip("/")


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None


def given_value(variable: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """What `variable` says, or the file that `<variable>_FILE` names, without the end of its last line; else None.

    Secrets come as files: an environment is inherited by each child, and shown to whoever may look at the process.
    Raises: `SettingsError` if both are there, or the file cannot be read.
    """
    path = environ.get(f"{variable}_FILE")
    if not path:
        return environ.get(variable)
    if variable in environ:
        raise SettingsError(f"{variable} and {variable}_FILE are both set: leave one out")
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}_FILE={path} cannot be read: {error}") from error


def package_storage(environment: Environment) -> dict[str, Any]:
    """Django's settings of the storage of packages."""
    options = _json_object(environment.storage_options) or {}
    if not options and environment.storage_backend == FOLDER_STORAGE:
        options = {"location": str(environment.data_path / "artifacts")}
    return {"BACKEND": environment.storage_backend, "OPTIONS": options}


def database(environment: Environment) -> dict[str, Any]:
    """Django's settings of the database."""
    url = environment.database_url or f"sqlite:///{quote(str(environment.data_path / 'modfleet.sqlite3'))}"
    if url.startswith("sqlite:"):
        options: dict[str, Any] = {
            # A transaction that reads first and writes later fails at once when another one wrote in between.
            "transaction_mode": "IMMEDIATE",
            "timeout": environment.database_lock_seconds,
            # recursive_triggers: what REPLACE removes is refused by the log's triggers as well.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA recursive_triggers=ON;",
        }
        return {**dj_database_url.parse(url, conn_max_age=600, conn_health_checks=True), "OPTIONS": options}
    settings: dict[str, Any] = {**dj_database_url.parse(url, conn_max_age=600, conn_health_checks=True)}
    given = settings.get("OPTIONS", {})
    lock_timeout = f"-c lock_timeout={round(environment.database_lock_seconds * 1000)}"
    startup = f"{lock_timeout} {given.get('options', '')}".rstrip()
    return {**settings, "OPTIONS": {"connect_timeout": 5, **given, "options": startup}}


def pooled(database: Mapping[str, Any], environment: Environment) -> dict[str, Any]:
    """Settings of a database for a process with more threads than the database takes connections. SQLite needs none."""
    if database["ENGINE"] != "django.db.backends.postgresql":
        return {**database}
    pool = {
        "min_size": 0,
        "max_size": environment.database_pool_size,
        "timeout": environment.database_pool_seconds,
        # Then the next request tries again at once: the pool itself would double its waits.
        "reconnect_timeout": 1.0,
    }
    # What a thread has done with goes back to the pool, whose connections stay open.
    return {**database, "CONN_MAX_AGE": 0, "OPTIONS": {**database["OPTIONS"], "pool": pool}}


def private_files(environment: Environment) -> tuple[Path, ...]:
    """Those that hold secrets, in the data folder or where a setting says; some may not be there."""
    kept = (environment.data_path / "secret_key", environment.log_heads_path)
    settings = database(environment)
    if settings["ENGINE"] != "django.db.backends.sqlite3":
        return kept
    return (*kept, *(Path(f"{settings['NAME']}{suffix}").absolute() for suffix in ("", "-wal", "-shm", "-journal")))


#: Whether the data folder and the secret key are made if they are missing.
_makes_files = True


def make_nothing() -> None:
    """From now on neither a data folder nor a secret key is made: a command that only reads leaves nothing behind."""
    global _makes_files  # noqa: PLW0603  # Django reads the settings once, without arguments
    _makes_files = False


def make_data_folder(environment: Environment) -> None:
    """The data folder is there, for its owner alone, where a secret key or SQLite goes into it. Raises: `SettingsError`."""
    if not _makes_files or (environment.secret_key and environment.database_url):
        return
    try:
        environment.data_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"{PREFIX}DATA_DIR={environment.data_dir}: the folder cannot be made ({error.strerror}); "
            "name one that you may write to"
        ) from error


def secret_key(environment: Environment) -> str:
    """The one given, else one kept in the data folder, made at the first start and readable by its owner only.

    Raises: `SettingsError`.
    """
    if environment.secret_key:
        return environment.secret_key
    make_data_folder(environment)
    path = environment.data_path / "secret_key"
    if not _makes_files and not path.exists():
        return secrets.token_urlsafe(50)  # what only reads signs nothing
    try:
        if not path.exists():
            # Whole or not there: services that start together read what the first of them has written.
            with NamedTemporaryFile("w", dir=path.parent) as file:  # readable by its owner only
                file.write(secrets.token_urlsafe(50))
                file.flush()
                with suppress(FileExistsError):
                    os.link(file.name, path)
        return path.read_text()
    except OSError as error:
        raise SettingsError(
            f"{PREFIX}DATA_DIR={environment.data_dir}: the secret key in it cannot be read or made ({error.strerror})"
        ) from error
