"""`modfleet modules`: show and delete registered modules."""

import typer
from rich.console import RenderableType

from modfleet.client import MODULES, Client, Document
from modfleet.commands.completion import ModuleName, Version
from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, Yes, open_session, sheet, table
from modfleet.failure import CommandError

app = typer.Typer(invoke_without_command=True)


@app.callback()
@builds(session=open_session)
def modules(ctx: typer.Context, session: Session) -> None:
    """Show and delete registered modules. Without a command, list them."""
    if ctx.invoked_subcommand is None:
        _show_all(session)


@app.command("list")
@builds(session=open_session)
def list_modules(session: Session) -> None:
    """List the registered modules by name and version."""
    _show_all(session)


def _show_all(session: Session) -> None:
    session.show(list(session.api.every(MODULES)), _in_a_table)


def _in_a_table(found: list[Document]) -> RenderableType:
    return table(
        ("MODULE", "VERSION", "SEMANTIC VERSION", "MIN REDIS", "COMMANDS", "UID"),
        (
            (
                each["module_name"],
                each["version"],
                each["semantic_version"],
                each["min_redis_version"],
                len(each["commands"]),
                each["uid"],
            )
            for each in found
        ),
    )


@app.command()
@builds(session=open_session)
def show(module_name: ModuleName, version: Version, session: Session) -> None:
    """Show one registered module."""
    session.show(registered(session.api, module_name, version), sheet)


@app.command()
@builds(session=open_session)
def delete(module_name: ModuleName, version: Version, session: Session, yes: Yes = False) -> None:
    """Delete a registered module that no node has loaded. Its artifact and its files on nodes stay."""
    session.confirm(f"Delete the module {module_name} {version}?", yes=yes)
    answer = session.api.delete(f"{MODULES}/{registered(session.api, module_name, version)['uid']}")
    session.show(answer, lambda _: f"deleted the module {module_name} {version}")


def find_registered(api: Client, module_name: str, version: int) -> Document | None:
    key = (module_name, version)
    return next((each for each in api.every(MODULES) if (each["module_name"], each["version"]) == key), None)


def registered(api: Client, module_name: str, version: int) -> Document:
    """Return the module object. Raises: `CommandError`."""
    if (found := find_registered(api, module_name, version)) is None:
        raise CommandError(f"There is no module {module_name} {version}. `modfleet modules` lists all modules.")
    return found
