"""`modfleet login` and `modfleet logout`: save a token for later commands, and delete it."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import httpx
import typer

from modfleet.access_token import lifetime
from modfleet.client import AUTHORIZE, Client
from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, ask_password, is_a_person_there, open_session
from modfleet.failure import UsageError
from modfleet.profile import (
    Access,
    Profile,
    cacert_from,
    password_from,
    profile_path,
    read_profile,
    url_from,
    write_profile,
)


@builds(session=open_session)
def login(
    session: Session,
    hours: Annotated[
        int,
        typer.Option(min=1, max=24, help="Lifetime of the token, in hours. Commands renew it after half of that time."),
    ] = 24,
) -> None:
    """Sign in: get a token, and save it with the URL for later commands.

    The user comes from --user or MODFLEET_USER, the password from --password-file or MODFLEET_PASSWORD. Without them,
    the command asks on a terminal. It saves the token, not the password, in ~/.config/modfleet/config.toml, or in the
    file of MODFLEET_CONFIG. Only you can read that file.
    """
    path = profile_path(os.environ)
    kept = read_profile(path)
    url = url_from(session.given, os.environ, kept)
    if url != (kept.url or "").rstrip("/"):
        kept = Profile()
    user = session.given.user or os.environ.get("MODFLEET_USER") or kept.user or _ask_user()
    ask = ask_password if is_a_person_there() else None
    password = password_from(session.given, os.environ, kept, user=user, ask=ask)
    cacert = cacert_from(session.given, os.environ, kept)
    access = Access(url=url, auth=httpx.BasicAuth(user, password), cacert=cacert)
    with Client(access) as api:
        token = api.post(AUTHORIZE, {"ttl": hours * 3600})["access_token"]
    write_profile(path, Profile(url=url, user=user, token=token, cacert=str(cacert.absolute()) if cacert else None))
    expires_at = datetime.fromtimestamp(lifetime(token)[1], UTC).isoformat().replace("+00:00", "Z")
    answer = {"url": url, "user": user, "expires_at": expires_at, "config": str(path)}
    session.show(answer, lambda _: f"signed in to {url} as {user}, until {expires_at}")


@builds(session=open_session)
def logout(session: Session) -> None:
    """Sign out: delete the saved token.

    The saved URL stays. A copy of the token stays valid until it expires or the password changes.
    """
    path = profile_path(os.environ)
    kept = read_profile(path)
    if kept.token or kept.password:
        write_profile(path, replace(kept, token=None, password=None))
    session.show({"url": kept.url, "config": str(path)}, lambda _: f"signed out; {path} has no credentials")


def _ask_user() -> str:
    """Ask for the user. Raises: `UsageError` without a terminal."""
    if not is_a_person_there():
        raise UsageError("No user to sign in: give --user NAME, or set MODFLEET_USER.")
    return str(typer.prompt("User", err=True))
