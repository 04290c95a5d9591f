"""`modfleet users`: show and manage the users."""

import os
from enum import StrEnum
from getpass import getpass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from accounts.roles import Role
from modfleet.client import USERS, Client, Document
from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, Yes, is_a_person_there, open_session, sheet, table
from modfleet.failure import CommandError, UsageError
from modfleet.profile import read_secret

app = typer.Typer(invoke_without_command=True)

COLUMNS = ("uid", "name", "email", "role", "status", "password_issue_date")


class Status(StrEnum):
    ACTIVE = "active"
    LOCKED = "locked"


Login = Annotated[str, typer.Argument(metavar="USER", help="User name or UID.")]
NewPasswordFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File whose first line is the new password; - for standard input. Default: MODFLEET_NEW_PASSWORD, else the "
        "command asks on a terminal.",
    ),
]


@app.callback()
@builds(session=open_session)
def users(ctx: typer.Context, session: Session) -> None:
    """Show and manage the users. Without a command, list them."""
    if ctx.invoked_subcommand is None:
        _show_all(session)


@app.command("list")
@builds(session=open_session)
def list_users(session: Session) -> None:
    """List the users."""
    _show_all(session)


def _show_all(session: Session) -> None:
    session.show(session.api.get(USERS), _in_a_table)


def _in_a_table(found: list[Document]) -> RenderableType:
    columns = ("UID", "NAME", "EMAIL", "ROLE", "STATUS", "PASSWORD SINCE")
    return table(columns, ([each[name] for name in COLUMNS] for each in found))


@app.command()
@builds(session=open_session)
def show(login: Login, session: Session) -> None:
    """Show one user."""
    session.show(session.api.get(_path(session.api, login)), sheet)


@app.command()
@builds(session=open_session)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="User name, to sign in with.")],
    session: Session,
    email: Annotated[str, typer.Option(help="Email address; no other user may have it.")],
    role: Annotated[Role, typer.Option(help="Role, which decides what the user may do.")] = Role.CLUSTER_VIEWER,
    new_password_file: NewPasswordFile = None,
) -> None:
    """Add a user."""
    password = _new_password(new_password_file, name)
    body = {"name": name, "email": email, "role": role.value, "password": password}
    session.show(session.api.post(USERS, body), lambda user: f"added {user['name']} as {user['role']}")


@app.command("set")
@builds(session=open_session)
def change(
    login: Login,
    session: Session,
    name: Annotated[str | None, typer.Option(help="New user name.")] = None,
    email: Annotated[str | None, typer.Option(help="New email address.")] = None,
    role: Annotated[Role | None, typer.Option(help="New role. The user's tokens become invalid.")] = None,
    status: Annotated[Status | None, typer.Option(help="New status. A locked user cannot sign in.")] = None,
) -> None:
    """Change the name, email address, role or status of a user."""
    given = {"name": name, "email": email, "role": role and role.value, "status": status and status.value}
    body = {field: value for field, value in given.items() if value is not None}
    if not body:
        raise UsageError("Nothing to change: give --name, --email, --role or --status.")
    session.show(session.api.put(_path(session.api, login), body), sheet)


@app.command()
@builds(session=open_session)
def passwd(login: Login, session: Session, new_password_file: NewPasswordFile = None) -> None:
    """Change the password of a user. The user's tokens become invalid: sign in again."""
    path = _path(session.api, login)
    answer = session.api.put(path, {"password": _new_password(new_password_file, login)})
    session.show(answer, lambda each: f"changed the password of {each['name']}")


@app.command()
@builds(session=open_session)
def delete(login: Login, session: Session, yes: Yes = False) -> None:
    """Delete a user. Events of the user stay in the log."""
    session.confirm(f"Delete the user {login}?", yes=yes)
    session.show(session.api.delete(_path(session.api, login)), lambda _: f"deleted the user {login}")


def _path(api: Client, user: str) -> str:
    """Return the path of the user. Raises: `CommandError`."""
    uids = [each["uid"] for each in api.get(USERS) if each["name"] == user] if not user.isdecimal() else [user]
    if not uids:
        raise CommandError(f"There is no user {user}. `modfleet users` lists all users.")
    return f"{USERS}/{uids[0]}"


def _new_password(path: Path | None, user: str) -> str:
    """Return the new password. Raises: `UsageError`."""
    if path is not None:
        return read_secret(path)
    if password := os.environ.get("MODFLEET_NEW_PASSWORD"):
        return password
    if not is_a_person_there():
        raise UsageError("No new password: give --new-password-file FILE, or set MODFLEET_NEW_PASSWORD.")
    password = getpass(f"New password of {user}: ")
    if getpass("Repeat the password: ") != password:
        raise UsageError("The passwords differ. Nothing was changed.")
    return password
