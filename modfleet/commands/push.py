"""`modfleet push`: a package into the cluster."""

import json
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from modfleet.client import MODULES, Client, Document
from modfleet.commands.modules import find_registered
from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, open_session, printable
from modfleet.failure import UsageError

#: Bytes.
MAX_METADATA = 1024 * 1024


@builds(session=open_session)
def push(
    file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="The package: one .so and its module.json.")],
    session: Session,
) -> None:
    """Upload a package, once for the whole cluster, and register the module that it holds.

    A package that is refused leaves nothing behind. The same package again changes nothing, and the command says so. Each platform has a package of its own.
    """
    metadata = _metadata(file)
    known = find_registered(session.api, str(metadata.get("module_name")), _version(metadata))
    artifact, is_new = _upload(session.api, file)  # first: a package that is refused leaves no module behind
    module = known or session.api.post(MODULES, _module_object(metadata))
    answer = {"module": module, "module_created": known is None, "artifact": artifact, "artifact_created": is_new}
    session.show(answer, _in_words)


def _metadata(file: Path) -> dict[str, Any]:
    """Of the package. What it says is checked by the control plane. Raises: `UsageError`."""
    try:
        with zipfile.ZipFile(file) as package, package.open("module.json") as member:
            document = json.loads(member.read(MAX_METADATA))
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()  # Python reads more than JSON has
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}.") from error
    except KeyError as error:
        raise UsageError(f"{file} has no module.json: `modfleet pack` makes a package of a module.") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise UsageError(f"{file} is no readable zip file: `modfleet pack` makes a package of a module.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The module.json of {file} is no JSON: {error}.") from error
    if not isinstance(document, dict):
        raise UsageError(f"The module.json of {file} is no JSON object.")
    return document


def _module_object(metadata: dict[str, Any]) -> dict[str, Any]:
    """With the two fields that a package may lack and a module object may not."""
    given = {name: value for name, value in metadata.items() if value is not None}
    return {"display_name": given.get("module_name", ""), "command_line_args": "", **given}


def _version(metadata: dict[str, Any]) -> int:
    """RAMP writes 10203.0. What is no number, the control plane refuses."""
    version = metadata.get("version")
    return int(version) if isinstance(version, int | float) else -1


def _upload(api: Client, file: Path) -> tuple[Document, bool]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    is_seen = console.is_terminal and sys.stderr.isatty() and not console.is_dumb_terminal
    with (
        Progress(*columns, console=console, transient=True, disable=not is_seen) as progress,
        progress.open(file, "rb", description=printable(file.name)) as content,
    ):
        return api.upload(content, name=file.name)


def _in_words(answer: Document) -> str:
    module, artifact = answer["module"], answer["artifact"]
    name = f"{module['module_name']} {module['version']}"
    platforms = ", ".join(each["platform"] for each in artifact["builds"])
    registered = "registered" if answer["module_created"] else "was registered before"
    uploaded = "uploaded" if answer["artifact_created"] else "was uploaded before"
    if not answer["module_created"] and not answer["artifact_created"]:
        return f"{name}: no change, the same package is there already ({platforms})"
    return f"{name}: the module {registered}, the package {uploaded} ({platforms})"
