"""Find the URL and the credentials: from options, the environment, or the file that `modfleet login` writes.

An option overrides the environment, which overrides the file. Secrets come from the environment, files or a prompt,
never from the value of an option, which the list of processes would show. Credentials in the file are used only for the
URL in the file.
"""

import json
import os
import shlex
import ssl
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from durable import write_file
from modfleet.access_token import TokenAuth
from modfleet.failure import UsageError

#: Where `modfleet up` listens.
DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The connection options of a command; None for an option that was not given."""

    url: str | None = None
    user: str | None = None
    #: `-`: standard input.
    password_file: Path | None = None
    token_file: Path | None = None
    cacert: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The fields of the file."""

    url: str | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    cacert: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    url: str
    auth: httpx.Auth | None
    #: File of certificate authorities; None for those of the machine.
    cacert: Path | None = None

    def trust(self) -> ssl.SSLContext | bool:
        """Return the TLS setting for httpx. Raises: `UsageError`."""
        if self.cacert is None:
            return True
        try:
            return ssl.create_default_context(cafile=str(self.cacert))
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"{self.cacert} cannot be used for --cacert: it must be a readable PEM file.") from error


def profile_path(environ: Mapping[str, str]) -> Path:
    if given := environ.get("MODFLEET_CONFIG"):
        return Path(given)
    directory = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(directory) / "modfleet" / "config.toml"


def read_profile(path: Path) -> Profile:
    """Return the profile; an empty one if there is no file. Raises: `UsageError`."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            document = tomllib.load(file)
    except FileNotFoundError:
        return Profile()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path} cannot be read ({reason}). Fix it, or remove it and run `modfleet login`.") from error
    names = Profile.__dataclass_fields__.keys()
    if wrong := sorted(name for name, value in document.items() if name not in names or not isinstance(value, str)):
        raise UsageError(f"{path} has wrong fields: {', '.join(wrong)}. Allowed are strings for {', '.join(names)}.")
    if mode & 0o077 and {"password", "token"} & document.keys():
        raise UsageError(f"{path} has a secret, and other users can read it. Run `chmod 600 {shlex.quote(str(path))}`.")
    return Profile(**document)


def write_profile(path: Path, profile: Profile) -> None:
    """Replace the file at once, readable only by its owner. Raises: `UsageError`."""
    values = {name: getattr(profile, name) for name in Profile.__dataclass_fields__}
    # A JSON string is a TOML string, unless it escapes surrogates.
    text = "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items() if value)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(path, text.encode(), mode=0o600)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}. Set MODFLEET_CONFIG to another file.") from error


def access_from(given: Given, environ: Mapping[str, str], *, ask: Callable[[str], str] | None) -> Access:
    """Return the URL and the credentials. `ask` asks for a password; None without a terminal. Raises: `UsageError`."""
    path = profile_path(environ)
    kept = read_profile(path)
    url = url_from(given, environ, kept)
    if url != (kept.url or "").rstrip("/"):
        kept = Profile()
    return Access(
        url=url, auth=_credentials(given, environ, kept, url, path, ask), cacert=cacert_from(given, environ, kept)
    )


def url_from(given: Given, environ: Mapping[str, str], kept: Profile) -> str:
    """Return the URL. Raises: `UsageError`."""
    url = (given.url or environ.get("MODFLEET_URL") or kept.url or DEFAULT_URL).rstrip("/")
    if not _is_control_plane(url):
        raise UsageError("The URL must be http(s)://HOST[:PORT] without credentials. Set --url or MODFLEET_URL.")
    return url


def _is_control_plane(url: str) -> bool:
    try:
        httpx.URL(url)
        parts = urlsplit(url)
        is_address = bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        return False
    return parts.scheme in {"http", "https"} and is_address and not {"@", "?", "#"}.intersection(url)


def cacert_from(given: Given, environ: Mapping[str, str], kept: Profile) -> Path | None:
    text = given.cacert or environ.get("MODFLEET_CACERT") or kept.cacert
    return Path(text) if text else None


def read_secret(path: Path) -> str:
    """Return the first line of the file, or of standard input if it is `-`. Raises: `UsageError`."""
    try:
        text = sys.stdin.readline() if str(path) == "-" else path.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read. Give a text file whose first line is the secret.") from error
    if not (secret := text.rstrip("\r\n")):
        raise UsageError(f"{'Standard input' if str(path) == '-' else path} has no secret in its first line.")
    return secret


def password_from(
    given: Given, environ: Mapping[str, str], kept: Profile, *, user: str, ask: Callable[[str], str] | None
) -> str:
    """Return the password of the user. Raises: `UsageError`."""
    if given.password_file is not None:
        return read_secret(given.password_file)
    if password := environ.get("MODFLEET_PASSWORD") or (kept.password if kept.user == user else None):
        return password
    if ask is None:
        raise UsageError(
            f"No password for {user}: run `modfleet login` on a terminal, set MODFLEET_PASSWORD, or give "
            "--password-file FILE."
        )
    return ask(user)


def _credentials(
    given: Given,
    environ: Mapping[str, str],
    kept: Profile,
    url: str,
    path: Path,
    ask: Callable[[str], str] | None,
) -> httpx.Auth:
    if given.token_file is not None:
        return TokenAuth(read_secret(given.token_file), url=url)
    if given.user is None and given.password_file is None:
        if token := environ.get("MODFLEET_TOKEN"):
            return TokenAuth(token, url=url)
        if not environ.get("MODFLEET_USER") and kept.token:
            return TokenAuth(kept.token, url=url, keep=lambda new: write_profile(path, replace(kept, token=new)))
    user = given.user or environ.get("MODFLEET_USER") or kept.user
    if not user:
        raise UsageError(
            f"No credentials for {url}: run `modfleet login --url {url}`, or set MODFLEET_USER and MODFLEET_PASSWORD."
        )
    return httpx.BasicAuth(user, password_from(given, environ, kept, user=user, ask=ask))
