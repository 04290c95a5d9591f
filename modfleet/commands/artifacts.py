"""`modfleet artifacts`: show and delete uploaded artifacts."""

import typer
from rich.console import Group, RenderableType

from modfleet.client import ARTIFACTS, Document, path_to
from modfleet.commands.completion import ModuleName, Version
from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, Yes, open_session, sheet, table

app = typer.Typer(invoke_without_command=True)

BUILD_COLUMNS = ("platform", "size", "content_sha256", "package_sha256", "uploaded_at", "uploaded_by")


@app.callback()
@builds(session=open_session)
def artifacts(ctx: typer.Context, session: Session) -> None:
    """Show and delete uploaded artifacts. Without a command, list them."""
    if ctx.invoked_subcommand is None:
        _show_all(session)


@app.command("list")
@builds(session=open_session)
def list_artifacts(session: Session) -> None:
    """List the artifacts by name and version, with their builds."""
    _show_all(session)


def _show_all(session: Session) -> None:
    session.show(list(session.api.every(ARTIFACTS)), _in_a_table)


def _in_a_table(found: list[Document]) -> RenderableType:
    return table(
        ("MODULE", "VERSION", "PLATFORM", "BYTES", "UPLOADED AT", "BY", "CONTENT SHA-256"),
        (
            (
                each["module_name"],
                each["version"],
                build["platform"],
                build["size"],
                build["uploaded_at"],
                build["uploaded_by"],
                build["content_sha256"],
            )
            for each in found
            for build in each["builds"]
        ),
    )


@app.command()
@builds(session=open_session)
def show(module_name: ModuleName, version: Version, session: Session) -> None:
    """Show one artifact and its builds."""
    session.show(session.api.get(path_to(ARTIFACTS, module_name, str(version))), _in_words)


def _in_words(artifact: Document) -> RenderableType:
    columns = [each.upper().replace("_", " ") for each in BUILD_COLUMNS]
    rows = ([each[name] for name in BUILD_COLUMNS] for each in artifact["builds"])
    fields = {name: value for name, value in artifact.items() if name != "builds"}
    return Group(sheet(fields), "", table(columns, rows))


@app.command()
@builds(session=open_session)
def delete(module_name: ModuleName, version: Version, session: Session, yes: Yes = False) -> None:
    """Delete an artifact. It must not be on a node or needed by a rollout."""
    session.confirm(f"Delete the artifact {module_name} {version}?", yes=yes)
    answer = session.api.delete(path_to(ARTIFACTS, module_name, str(version)))
    session.show(answer, lambda _: f"deleted the artifact {module_name} {version}")
