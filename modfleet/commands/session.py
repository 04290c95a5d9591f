"""The session of a command: the connection options, the API client, and the output."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import cached_property
from getpass import getpass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import typer
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from modfleet.client import Client, Document
from modfleet.failure import CommandError
from modfleet.profile import DEFAULT_URL, Access, Given, access_from

CONNECTION = "Connection"
#: Least width of a column in a terminal, characters: three of text, and the space between two columns.
COLUMN_LEAST = 6


def open_session(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            help="URL of the control plane, http(s)://HOST[:PORT]. Default: MODFLEET_URL, else the URL that `modfleet "
            f"login` saved, else {DEFAULT_URL}.",
            rich_help_panel=CONNECTION,
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="Sign in as this user, with a password. Default: MODFLEET_USER.", rich_help_panel=CONNECTION),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="File whose first line is the password; - for standard input. Without it, MODFLEET_PASSWORD has the password.",
            metavar="FILE",
            rich_help_panel=CONNECTION,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File whose first line is an access token; - for standard input. Without it, MODFLEET_TOKEN has the token.",
            metavar="FILE",
            rich_help_panel=CONNECTION,
        ),
    ] = None,
    cacert: Annotated[
        Path | None,
        typer.Option(
            help="PEM file with the certificate authority of the control plane. Default: MODFLEET_CACERT, else the file "
            "that `modfleet login` saved.",
            metavar="FILE",
            rich_help_panel=CONNECTION,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the API's JSON, for programs.", rich_help_panel=CONNECTION)
    ] = False,
) -> "Session":
    """Return the session. A connection option may follow any command word; the one nearest to the command wins."""
    nearest: dict[str, Any] = ctx.meta.setdefault("modfleet.connection", {"as_json": False})
    given = {"url": url, "user": user, "password_file": password_file, "token_file": token_file, "cacert": cacert}
    nearest |= {name: value for name, value in given.items() if value is not None}
    nearest["as_json"] |= as_json
    return Session(Given(**{each.name: nearest.get(each.name) for each in fields(Given)}), as_json=nearest["as_json"])


class Session:
    """Connection and output of one command. Credentials and the connection are made when they are first used."""

    def __init__(self, given: Given, *, as_json: bool) -> None:
        self.given = given
        self.as_json = as_json
        self._client: Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.__exit__(kind, error, trace)

    @property
    def api(self) -> Client:
        """Return the API client. Raises: `UsageError`."""
        if self._client is None:
            self._client = Client(self.access())
        return self._client

    def access(self) -> Access:
        return access_from(self.given, os.environ, ask=ask_password if is_a_person_there() else None)

    @cached_property
    def console(self) -> Console:
        return Console(highlight=False, emoji=False, markup=False)

    def show(self, document: Document, in_words: Callable[[Any], RenderableType]) -> None:
        """Print the document as JSON with `--json`, else what `in_words` makes of it."""
        if self.as_json:
            self.print_json(document)
            return
        self.say(in_words(document))

    def print_json(self, document: Document, *, indent: int | None = 2) -> None:
        text = json.dumps(document, indent=indent, ensure_ascii=False)
        # JSON escapes few of the characters that a terminal obeys, and a node's text may contain them.
        shown = (each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text)
        self.console.file.write("".join(shown) + "\n")
        self.console.file.flush()

    def print_file(self, text: str) -> None:
        """Print the text unchanged, for a file."""
        self.console.file.write(text)
        self.console.file.flush()

    def say(self, what: RenderableType) -> None:
        """Print to the width of a terminal, or without a limit to anything else."""
        if self.console.is_terminal:
            self.console.print(what, soft_wrap=isinstance(what, str))
            return
        wide = Console(file=self.console.file, width=100_000, color_system=None, force_terminal=False, emoji=False)
        with wide.capture() as captured:
            wide.print(what, soft_wrap=True, markup=False, highlight=False)
        self.console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
        self.console.file.flush()

    def note(self, text: str) -> None:
        """Print a line to standard error."""
        typer.echo(printable(text), err=True)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask on a terminal. Raises: `CommandError` if the answer is no."""
        if yes or self.as_json or not is_a_person_there():
            return
        if not typer.confirm(question, err=True):
            raise CommandError("Nothing was changed.")


def is_a_person_there() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask_password(user: str) -> str:
    """Ask for a password without echo."""
    return getpass(f"Password of {printable(user)}: ")


def printable(value: object) -> str:
    """Return text without control characters, which a terminal would obey; numbers with two decimals."""
    text = "" if value is None else f"{value:z.2f}" if isinstance(value, float) else str(value)
    return "".join(each if each.isprintable() else " " for each in text)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """Return a table. The first column has what is copied to the next command: it is folded only if it must be."""
    lines = [[Text(printable(each)) for each in row] for row in rows]
    widest = max((line[0].cell_len for line in lines), default=0)
    is_room = widest + COLUMN_LEAST * (len(columns) - 1) <= Console().width
    made = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, title=title or None, title_justify="left")
    made.pad_edge = made.show_edge = False
    for position, name in enumerate(columns):
        made.add_column(name, overflow="fold", no_wrap=position == 0 and is_room)
    for line in lines:
        made.add_row(*line)
    return made


def sheet(document: Document) -> Table:
    """Return one object as a line for each field."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in document.items():
        made.add_row(Text(printable(name)), Text(printable(in_a_line(value))))
    return made


def in_a_line(value: Any) -> object:
    match value:
        case dict():
            return ", ".join(f"{name}={in_a_line(inner)}" for name, inner in value.items())
        case list() if all(isinstance(each, str | int) for each in value):
            return ", ".join(map(str, value))
        case list():
            return json.dumps(value, ensure_ascii=False)
        case bool():
            return "yes" if value else "no"
        case _:
            return value


#: For commands that ask for confirmation.
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", "-y", help="Do not ask for confirmation. The command never asks with --json or without a terminal."
    ),
]
