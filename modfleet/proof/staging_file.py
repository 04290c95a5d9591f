"""The file that names a user's own servers, module and commands: YAML for `modfleet prove --staging`."""

import re
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
from modfleet.proof.paths import AnyPath, ClusterPath, PlainPath, SentinelPath

#: More commands per second than this need the user's consent.
SANE_RATE = 2000
DEFAULT_PORTS = {"servers": 6379, "sentinels": 26379}

Words = Annotated[tuple[str | int, ...], Meta(min_length=1)]
Hosts = Annotated[tuple[str, ...], Meta(min_length=1)]


class _Sentinel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hosts: Hosts
    name: Annotated[str, Meta(min_length=1)]


class _Servers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str | None = None
    sentinel: _Sentinel | None = None
    cluster: Hosts | None = None
    username: str | None = None
    password_file: str | None = None


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
    username, password = servers.username, _password(servers.password_file, folder)
    if username is not None and password is None:
        raise ValueError("servers.username needs servers.password_file")
    if servers.url is not None:
        return PlainPath(urls=(_url(servers.url),), username=username, password=password)
    if servers.sentinel is not None:
        hosts = tuple(_address(each, DEFAULT_PORTS["sentinels"]) for each in servers.sentinel.hosts)
        return SentinelPath(hosts=hosts, name=servers.sentinel.name, username=username, password=password)
    hosts = tuple(_address(each, DEFAULT_PORTS["servers"]) for each in servers.cluster or ())
    return ClusterPath(hosts=hosts, username=username, password=password)


def _password(file: str | None, folder: Path) -> str | None:
    """Return the first line of the file. A relative path begins at the folder of the YAML file."""
    if file is None:
        return None
    try:
        password = (folder / file).read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"servers.password_file: {folder / file} cannot be read") from None
    if not password:
        raise ValueError(f"servers.password_file: {folder / file} has no password in its first line")
    return password


def _url(text: str) -> str:
    """Return the URL with its port."""
    parts = urlsplit(text)
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        raise ValueError(f"servers.url: {text} is no URL of a server: write redis://HOST:PORT or rediss://HOST:PORT")
    if "@" in parts.netloc:
        raise ValueError("servers.url: the user belongs into servers.username, the password into servers.password_file")
    if parts.path.strip("/") or parts.query:
        raise ValueError("servers.url: write it without a database and without options")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{_port(parts, DEFAULT_PORTS['servers'])}"


def _address(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or parts.username is not None:
        raise ValueError(f"servers: {text} is no address: write HOST:PORT")
    return parts.hostname, _port(parts, port)


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
