"""`modfleet push`: upload a package."""

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

#: Most bytes of a module.json that are read.
MAX_METADATA = 1024 * 1024


@builds(session=open_session)
def push(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.zip", help="Package to upload: one .so file, its module.json, and optional files in deps/."
        ),
    ],
    session: Session,
) -> None:
    """Upload a package for the whole cluster, and register its module.

    Each platform has its own package. Uploading the same package again changes nothing. A refused package leaves
    nothing behind.
    """
    metadata = _metadata(file)
    known = find_registered(session.api, str(metadata.get("module_name")), _version(metadata))
    artifact, is_new = _upload(session.api, file)  # before the module: a refused package must leave none behind
    module = known or session.api.post(MODULES, _module_object(metadata))
    answer = {"module": module, "module_created": known is None, "artifact": artifact, "artifact_created": is_new}
    session.show(answer, _in_words)


def _metadata(file: Path) -> dict[str, Any]:
    """Return the package's module.json. The control plane checks its fields. Raises: `UsageError`."""
    try:
        with zipfile.ZipFile(file) as package, package.open("module.json") as member:
            document = json.loads(member.read(MAX_METADATA))
        # Python reads values that JSON does not have.
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}.") from error
    except KeyError as error:
        raise UsageError(f"{file} has no module.json. Make a package with `modfleet pack`.") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise UsageError(f"{file} is not a readable zip file. Make a package with `modfleet pack`.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The module.json of {file} is not valid JSON: {error}.") from error
    if not isinstance(document, dict):
        raise UsageError(f"The module.json of {file} is not a JSON object.")
    return document


def _module_object(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the module object: with the two fields that only packages may lack."""
    given = {name: value for name, value in metadata.items() if value is not None}
    return {"display_name": given.get("module_name", ""), "command_line_args": "", **given}


def _version(metadata: dict[str, Any]) -> int:
    """Return the version; RAMP writes 10203.0. The control plane refuses anything but a number."""
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
    registered = "registered" if answer["module_created"] else "already registered"
    uploaded = "uploaded" if answer["artifact_created"] else "already uploaded"
    if not answer["module_created"] and not answer["artifact_created"]:
        return f"{name}: no change, this package is already uploaded ({platforms})"
    return f"{name}: module {registered}, package {uploaded} ({platforms})"
