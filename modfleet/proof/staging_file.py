"""The file that names a user's own servers, module and commands: YAML for `modfleet prove --staging`."""

import re
import ssl
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

import msgspec
import yaml
from msgspec import Meta

import decoding
from modfleet.failure import UsageError
from modfleet.proof.history import Kind
from modfleet.proof.own_commands import MODULE_LIST, Commands
from modfleet.proof.paths import AnyPath, ClusterPath, PlainPath, SentinelPath, Tls

#: More commands per second than this need the user's consent.
SANE_RATE = 2000
DEFAULT_PORTS = {"servers": 6379, "sentinels": 26379}

Words = Annotated[tuple[str | int, ...], Meta(min_length=1)]
Hosts = Annotated[tuple[str, ...], Meta(min_length=1)]


class _Sentinel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hosts: Hosts
    name: Annotated[str, Meta(min_length=1)]
    username: str | None = None
    password_file: str | None = None


class _Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    check_hostname: bool = True


class _Servers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str | None = None
    sentinel: _Sentinel | None = None
    cluster: Hosts | None = None
    username: str | None = None
    password_file: str | None = None
    tls: _Tls | None = None


class _Commands(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    get: Words
    add: Words | None = None
    set: Words | None = None
    version: Words | None = None
    delete: Words = ("DEL", "{key}")


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    servers: _Servers
    module: Annotated[str, Meta(min_length=1)]
    commands: _Commands
    prefix: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\s{}]+$")] = "modfleet-proof:"
    rate: Annotated[int, Meta(ge=1)] = 200
    clients: Annotated[int, Meta(ge=1, le=64)] = 4
    entries_at: Annotated[int, Meta(ge=0)] | None = None


class Staging(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says. `rate`: commands per second of all clients together."""

    path: AnyPath
    #: The prefix in it is the file's: each run appends a word of its own.
    commands: Commands
    rate: int
    clients: int


def read_staging(file: Path) -> Staging:
    """Return what the file says. Raises: `UsageError`."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        read = decoding.convert(document, _File)
        return Staging(
            path=_path(read.servers, file.parent), commands=_commands(read), rate=read.rate, clients=read.clients
        )
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not a text file in UTF-8.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{file} is not valid YAML: {' '.join(str(error).split())}.") from error
    except (msgspec.ValidationError, ValueError) as error:
        raise UsageError(f"{file}: {_in_words(str(error))}.") from error


def _in_words(message: str) -> str:
    """Return the message of msgspec with the name of the field first."""
    found = re.fullmatch(r"(.*) - at `\$\.?(.*)`", message)
    what, where = (found[1], found[2]) if found else (message, "")
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        return f"{'.'.join(filter(None, (where, unknown[1])))} is not a field of this file"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"{'.'.join(filter(None, (where, missing[1])))} is missing"
    return f"{where}: {what[0].lower()}{what[1:]}" if where else what


# --- Servers ----------------------------------------------------------------------------------------------------------


def _path(servers: _Servers, folder: Path) -> AnyPath:
    given = {name: getattr(servers, name) for name in ("url", "sentinel", "cluster")}
    if len([each for each in given.values() if each is not None]) != 1:
        raise ValueError("servers must have exactly one of url, sentinel and cluster")
    username, password = servers.username, _password("servers", servers, folder)
    tls = _tls(servers.tls, folder)
    if servers.url is not None:
        url = _url(servers.url)
        if tls and not url.startswith("rediss:"):
            raise ValueError("servers.tls needs a URL that begins with rediss://")
        is_secured = url.startswith("rediss:")
        return PlainPath(urls=(url,), username=username, password=password, tls=tls or (Tls() if is_secured else None))
    if servers.sentinel is not None:
        return SentinelPath(
            hosts=tuple(_address(each, DEFAULT_PORTS["sentinels"]) for each in servers.sentinel.hosts),
            name=servers.sentinel.name,
            username=username,
            password=password,
            sentinel_username=servers.sentinel.username,
            sentinel_password=_password("servers.sentinel", servers.sentinel, folder),
            tls=tls,
        )
    hosts = tuple(_address(each, DEFAULT_PORTS["servers"]) for each in servers.cluster or ())
    return ClusterPath(hosts=hosts, username=username, password=password, tls=tls)


def _password(where: str, given: _Servers | _Sentinel, folder: Path) -> str | None:
    """Return the first line of the file. A relative path begins at the folder of the YAML file."""
    if given.password_file is None:
        if given.username is not None:
            raise ValueError(f"{where}.username needs {where}.password_file")
        return None
    file = folder / given.password_file
    try:
        password = file.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{where}.password_file: {file} cannot be read") from None
    if not password:
        raise ValueError(f"{where}.password_file: {file} has no password in its first line")
    return password


def _tls(given: _Tls | None, folder: Path) -> Tls | None:
    """Return the same with absolute paths. Raises: `ValueError` if a file cannot be used."""
    if given is None:
        return None
    if (given.cert_file is None) != (given.key_file is None):
        raise ValueError("servers.tls must have both of cert_file and key_file, or none")
    ca, cert, key = (
        each and str((folder / each).resolve()) for each in (given.ca_file, given.cert_file, given.key_file)
    )
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert and key:
            context.load_cert_chain(cert, key)
    except OSError as error:
        files = ", ".join(filter(None, (ca, cert, key)))
        raise ValueError(f"servers.tls: {files} cannot be used: {error.strerror or error}") from None
    return Tls(ca_file=ca, cert_file=cert, key_file=key, check_hostname=given.check_hostname)


def _url(text: str) -> str:
    """Return the URL with its port."""
    parts = urlsplit(text)
    if "@" in text:
        raise ValueError("servers.url: the user belongs into servers.username, the password into servers.password_file")
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        raise ValueError(f"servers.url: {text} is no URL of a server: write redis://HOST:PORT or rediss://HOST:PORT")
    _require_name(parts.hostname)
    if parts.path.strip("/") or parts.query:
        raise ValueError("servers.url: write it without a database and without options")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{_port(parts, DEFAULT_PORTS['servers'])}"


def _address(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or parts.username is not None:
        raise ValueError(f"servers: {text} is no address: write HOST:PORT")
    _require_name(parts.hostname)
    return parts.hostname, _port(parts, port)


def _require_name(host: str) -> None:
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"servers: {host} is no name of a host") from None


def _port(parts: SplitResult, default: int) -> int:
    try:
        return parts.port or default
    except ValueError:
        raise ValueError(f"servers: {parts.netloc} has no valid port") from None


# --- Commands ---------------------------------------------------------------------------------------------------------


def _commands(read: _File) -> Commands:
    given = read.commands
    if (given.add is None) == (given.set is None):
        raise ValueError("commands must have exactly one of add and set")
    kind, write = (Kind.ADD, given.add) if given.add else (Kind.SET, given.set or ())
    return Commands(
        module=read.module,
        prefix=read.prefix,
        kind=kind,
        write=_words(kind, write, "{key}", "{entry}"),
        get=_words("get", given.get, "{key}"),
        delete=_words("delete", given.delete, "{key}"),
        version=_words("version", given.version) if given.version else MODULE_LIST,
        entries_at=read.entries_at,
    )


def _words(name: str, words: Words, *placeholders: str) -> tuple[str, ...]:
    """Return the words. Raises: `ValueError` if a placeholder is missing, or has no meaning in this command."""
    texts = tuple(map(str, words))
    for each in placeholders:
        if not any(each in text for text in texts[1:]):
            raise ValueError(f"commands.{name} has no {each}")
    for text in texts:
        if unknown := set(re.findall(r"{\w+}", text)) - set(placeholders):
            raise ValueError(f"commands.{name} has {min(unknown)}, which means nothing there")
    return texts
