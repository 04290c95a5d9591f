"""The agent's settings: read once, from environment variables named `MODFLEET_<FIELD>`.

Each setting may come from a file instead, whose path is in `MODFLEET_<FIELD>_FILE`: the broker's URL has a password.
"""

import dataclasses
import difflib
import json
import re
import ssl
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec
from msgspec import Meta

import decoding
from durable import make_directory
from rollout import tls
from rollout.agent.failure import AgentError
from rollout.agent.inspection.sockets import is_local

PREFIX = "MODFLEET_"
#: A variable that is this similar to one of the agent's is a misspelt one. Those of the control plane are below it.
LIKENESS = 0.82

#: Replaced by MODFLEET_PERSISTENCE. It is still read, so that an upgrade needs no new settings.
FORMER = f"{PREFIX}PERSIST"

NodeName = Annotated[str, Meta(pattern=r"^(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,128}\Z")]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://")]
ServerUrl = Annotated[str, Meta(pattern=r"^(unix|redis|rediss)://")]
OperatingSystem = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9 ._-]{0,31}\Z")]
Access = typing.Literal["observe", "load", "restart"]
Persistence = typing.Literal["include", "rewrite", "external"]
Scratch = typing.Literal["require", "warn", "off"]
RestartWay = typing.Literal["shutdown", "systemd", "command", "external", "none"]
FailoverWay = typing.Literal["none", "sentinel", "command", "cluster"]
#: With a port, because that of Sentinel is not the default of the scheme.
SentinelUrl = Annotated[str, Meta(pattern=r"^rediss?://([^@/]*@)?[^@/]+:\d{1,5}/?\Z")]
ShardName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,128}\Z")]
UnitName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9:_.@\\-]{0,255}\Z")]
Seconds = Annotated[float, Meta(gt=0)]
#: A program with its arguments. No shell reads them.
CommandWords = Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=1)]


class SettingsError(AgentError):
    """A setting is missing or wrong. The message is one sentence that names the variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    #: Name of this node: letters, digits, `_`, `.`, `-`, at most 128. Its queue is named after it.
    node: NodeName
    #: URL of the broker for commands, reports and heartbeats, in Celery's form (`redis://host:6379/0`).
    broker_url: str
    #: Base URL of the control plane. Relative URLs of packages are appended to it.
    control_url: HttpUrl
    #: Server to load modules into: `unix:///path/to.sock` or `redis://host:port`. It must not be the broker.
    server_url: ServerUrl
    #: Directory for the modules, with a subdirectory `<module_name>/<version>/` for each. The agent owns it.
    modules_dir: Path
    #: Directory for the agent's journal. The agent owns it. Without the journal, the agent cannot refuse old commands.
    journal_dir: Path
    #: The node's identity, which `modfleet agent install` or `modfleet agent run --token-file` writes. The agent must be able
    #: to replace it. If not set, messages are not signed.
    identity_file: Path | None = None
    #: PEM file of a certificate authority to trust in addition to the public ones.
    control_ca: Path | None = None
    #: The same for a broker at `rediss://`.
    broker_ca: Path | None = None
    #: The same for a server at `rediss://`.
    server_ca: Path | None = None
    #: PEM file of the certificate that the agent sends to a server at `rediss://` that requires one.
    server_certificate: Path | None = None
    #: PEM file of that certificate's private key, without a password.
    server_key: Path | None = None
    #: ACL user with which the agent logs in to the server.
    server_user: str = ""
    #: File with that user's password. It is read at each connection, so the password may change.
    server_password_file: Path | None = None
    #: Path of `modules_dir` in the server's file system, if that is another one.
    server_modules_dir: Path | None = None
    #: File that the server's configuration includes, so that a restart loads the modules again. If not set:
    #: `<modules_dir>/modfleet.conf`.
    include_file: Path | None = None
    #: Who owns the lines from which a start of the server loads its modules. `include`: the agent writes `include_file`.
    #: `rewrite`: the server writes its main configuration file, by CONFIG REWRITE after each change. `external`: a person
    #: or a tool writes them; the agent only puts the files in place, says which line is missing, and waits.
    #: `modfleet agent install` sets it: to `rewrite` if a Sentinel watches the server.
    persistence: Persistence = "include"
    #: What the agent's user may do at the server: `observe` only, also `load` modules, or also `restart` the server.
    #: `modfleet agent install` sets it.
    access: Access = "load"
    #: Log file of the server, as the agent sees it. `modfleet agent install` sets it if it sees the log. If not set: the one
    #: that the server names, if the agent's user may call CONFIG GET. A failed operation reports what the server logged,
    #: redacted. The log also tells a crash from a restart by a person.
    server_log: Path | None = None
    #: systemd unit of the server, whose journal is read if the server has no log file that the agent can read.
    server_unit: UnitName = ""
    #: How the agent restarts the server. `shutdown`: it calls SHUTDOWN, and what supervises the server starts it again.
    #: `systemd`: it then starts the server's unit. `command`: it runs `restart_command`. `external`: a person or a tool restarts
    #: the server, and the agent waits for that. `none`: it is never restarted. If not set: `shutdown`, but only if the server's unit is seen to start it again.
    restart: RestartWay | None = None
    #: Command that restarts the server, as a JSON list, such as `["docker", "restart", "redis"]`.
    restart_command: CommandWords | None = None
    #: Command that runs before the server is restarted, as a JSON list: it may take the server out of a load balancer, or stop
    #: a backup. If it fails, the server is not restarted.
    pre_command: CommandWords | None = None
    #: Command that runs when the server serves again, also if the restart failed.
    post_command: CommandWords | None = None
    #: How a replica becomes the master before the server, a master, is restarted. `sentinel`: Sentinel does it. `command`: the
    #: agent calls FAILOVER, in a shard that nothing watches. `cluster`: it calls CLUSTER FAILOVER at the replica. For the last
    #: two, it connects to the replicas with the user and the password that it has for its own server. `none`: it does not.
    failover: FailoverWay = "none"
    #: URLs of the Sentinels, as a JSON list, such as `["redis://user:password@host:26379"]`. The first that answers is asked.
    sentinel_urls: tuple[SentinelUrl, ...] = ()
    #: Name of the shard in the Sentinels' configuration.
    sentinel_master: ShardName = ""
    #: `require` that a module has loaded in a scratch server before it enters the live one, `warn` if it has not, or `off`.
    scratch: Scratch = "require"
    #: Program of the server for scratch servers. If not set: the one that the server names. Set it if the agent sees it at
    #: another path.
    server_binary: Path | None = None
    #: The longest time for one load in a scratch server, and for the trial of a way back after a restart, seconds.
    scratch_seconds: Seconds = 30.0
    #: The most memory of a scratch server (RLIMIT_DATA), in millions of bytes.
    scratch_megabytes: Annotated[int, Meta(ge=64)] = 1024
    #: Operating system of the server's machine or container, such as `rhel9`, if the agent runs in another one. If not
    #: set: the one in the agent's `/etc/os-release`.
    operating_system: OperatingSystem = ""
    #: Names the machine; by default its machine id and host name. Nodes with the same one are never changed at the same time.
    host_id: str = ""
    #: Labels for selecting the node, such as `zone=a,tier=cache`.
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: Host names by which clients of the REST API address this node, separated by commas.
    api_hosts: tuple[str, ...] = ()
    #: Seconds between two heartbeats.
    beat_seconds: Seconds = 10.0
    #: `line` for people; `json` for programs, with one object per line.
    log_format: typing.Literal["line", "json"] = "line"

    @property
    def observe(self) -> bool:
        """Return True if the agent may change nothing at the server."""
        return self.access == "observe"


def settings_from(environ: Mapping[str, str]) -> AgentSettings:
    """Return the settings in `environ`. Raises: `SettingsError` that names the first variable that is missing or wrong."""
    _refuse_misspelt(environ)
    environ = _with_former_names(environ)
    types = typing.get_type_hints(AgentSettings, include_extras=True)
    given = {field.name: _given(PREFIX + field.name.upper(), environ) for field in dataclasses.fields(AgentSettings)}
    values = {
        field.name: _value(PREFIX + field.name.upper(), given[field.name], types[field.name])
        for field in dataclasses.fields(AgentSettings)
        if given[field.name] or _is_required(field)
    }
    settings = AgentSettings(**values)
    _require_usable_certificates(settings)
    if settings.restart == "command" and settings.restart_command is None:
        raise SettingsError(f"{PREFIX}RESTART=command needs {PREFIX}RESTART_COMMAND.")
    if settings.failover in {"sentinel", "command"} and settings.persistence == "include":
        raise SettingsError(
            f"{PREFIX}FAILOVER={settings.failover} needs {PREFIX}PERSISTENCE=rewrite: CONFIG REWRITE copies the lines of all modules "
            "into the server's main file."
        )
    if settings.failover == "sentinel" and not (settings.sentinel_urls and settings.sentinel_master):
        raise SettingsError(f"{PREFIX}FAILOVER=sentinel needs {PREFIX}SENTINEL_URLS and {PREFIX}SENTINEL_MASTER.")
    return settings


def _require_usable_certificates(settings: AgentSettings) -> None:
    """Raises: `SettingsError`."""
    _require_usable_authority("BROKER", settings.broker_url, settings.broker_ca)
    _require_usable_authority("SERVER", settings.server_url, settings.server_ca)
    certificate, key = settings.server_certificate, settings.server_key
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise SettingsError(f"{PREFIX}SERVER_CERTIFICATE and {PREFIX}SERVER_KEY must be set together.")
    if not tls.is_secured(settings.server_url):
        raise SettingsError(f"{PREFIX}SERVER_CERTIFICATE is set, but {PREFIX}SERVER_URL does not begin with rediss://.")
    if reason := tls.unusable_certificate(certificate, key):
        raise SettingsError(f"{PREFIX}SERVER_CERTIFICATE or {PREFIX}SERVER_KEY is wrong: {reason}.")


def _require_usable_authority(name: str, url: str, ca: Path | None) -> None:
    """Raises: `SettingsError`."""
    if ca is None:
        return
    if not tls.is_secured(url):
        raise SettingsError(f"{PREFIX}{name}_CA is set, but {PREFIX}{name}_URL does not begin with rediss://.")
    if reason := tls.unusable_authority(ca):
        raise SettingsError(f"{PREFIX}{name}_CA is wrong: {ca}: {reason}.")


def require_startable(settings: AgentSettings) -> None:
    """Check what an agent needs at its start. Creates its directories. Raises: `SettingsError` with one sentence.

    A directory that breaks later does not end the agent: its commands fail, and its heartbeats say so.
    """
    if settings.control_ca:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.control_ca)
        except ssl.SSLError as error:
            raise SettingsError(f"MODFLEET_CONTROL_CA={settings.control_ca} has no certificate in PEM.") from error
        except OSError as error:
            raise SettingsError(
                f"MODFLEET_CONTROL_CA={settings.control_ca} cannot be read: {error.strerror}."
            ) from error
    if is_plain_http(settings.control_url):
        raise SettingsError(
            f"MODFLEET_CONTROL_URL={settings.control_url} is not encrypted: use https://, except on this host."
        )
    if is_broker(settings):
        raise SettingsError("MODFLEET_SERVER_URL and MODFLEET_BROKER_URL are the same server: use two servers.")
    for name, mode in (("modules_dir", 0o755), ("journal_dir", 0o700)):
        directory: Path = getattr(settings, name)
        try:
            make_directory(directory, mode=mode)
        except OSError as error:
            raise SettingsError(f"{PREFIX}{name.upper()}={directory} cannot be created: {error.strerror}.") from error


def is_plain_http(url: str) -> bool:
    """Return True if the URL is not encrypted and leads to another host."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_local(parts.hostname or "")


def is_broker(settings: AgentSettings) -> bool:
    """Return True if the URLs of broker and server name the same socket or port."""
    return _endpoint(urlsplit(settings.broker_url)) == _endpoint(urlsplit(settings.server_url))


def _endpoint(parts: SplitResult) -> tuple[str, int]:
    if parts.scheme in {"unix", "redis+socket"}:
        return unquote(parts.path), 0
    name = parts.hostname or "localhost"
    return ("localhost" if _is_loopback(name) else name), parts.port or 6379


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _with_former_names(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return `environ` with the setting that has replaced MODFLEET_PERSIST. An agent that wrote no lines still writes none."""
    former = environ.get(FORMER, "").lower()
    if former not in {"false", "0", "no", "off"} or environ.get(f"{PREFIX}PERSISTENCE"):
        return environ
    return {**environ, f"{PREFIX}PERSISTENCE": "external"}


def _refuse_misspelt(environ: Mapping[str, str]) -> None:
    """Refuse a variable that is almost one of the agent's. All other variables may be of other programs."""
    names = {f"{PREFIX}{field.name.upper()}" for field in dataclasses.fields(AgentSettings)}
    by_stem = {_stem(name): name for name in sorted(names)}
    for variable in sorted(each for each in environ if each.startswith(PREFIX)):
        if variable in names or variable.removesuffix("_FILE") in names or variable == FORMER:
            continue
        if near := difflib.get_close_matches(_stem(variable), by_stem, n=1, cutoff=LIKENESS):
            meant = by_stem[near[0]]
            end = "_FILE" if variable.endswith("_FILE") and not meant.endswith("_FILE") else ""
            raise SettingsError(f"{variable} is no setting: did you mean {meant}{end}?")


def _stem(variable: str) -> str:
    return variable.removeprefix(PREFIX).removesuffix("_FILE")


def _given(variable: str, environ: Mapping[str, str]) -> str:
    path = environ.get(f"{variable}_FILE")
    if not path:
        return environ.get(variable, "")
    if environ.get(variable):
        raise SettingsError(f"{variable} and {variable}_FILE are both set: set only one.")
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}_FILE={path} cannot be read: {error}.") from error


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(variable: str, text: str, kind: Any) -> Any:
    if not text:
        raise SettingsError(f"{variable} is not set.")
    try:
        return decoding.convert(_split(variable, text), kind, strict=False, dec_hook=_absolute_path)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{variable} is wrong: {error}.") from error


def _split(variable: str, text: str) -> Any:
    words = [word for word in re.split(r"\s*,\s*", text.strip()) if word]
    match variable.removeprefix(PREFIX):
        case "API_HOSTS":
            return words
        case "LABELS":
            pairs = [word.partition("=") for word in words]
            if any(not key or not equals for key, equals, _ in pairs):
                raise SettingsError(f"{variable} is wrong: write it as `key=value,key2=value2`.")
            return {key.strip(): value.strip() for key, _, value in pairs}
        case "RESTART_COMMAND" | "PRE_COMMAND" | "POST_COMMAND" | "SENTINEL_URLS":
            try:
                return json.loads(text)
            except ValueError as error:
                raise SettingsError(
                    f'{variable} is wrong: write it as a JSON list such as ["first", "second"].'
                ) from error
        case _:
            return text


def _absolute_path(kind: type, value: Any) -> Any:
    """Return `value` as a path. Raises: `ValueError` if it is relative: agent and server have other working directories."""
    if kind is not Path:
        raise NotImplementedError(f"no way to read a {kind}")
    path = Path(value)
    if not path.is_absolute():
        raise ValueError(f"expected an absolute path, got `{value}`")
    return path
