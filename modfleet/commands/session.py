"""What every command has: the options of the connection, the client, and the way to show an answer."""

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
from modfleet.profile import Access, Given, access_from

CONNECTION = "Connection"
#: Of a table in a terminal, characters: three of text, and what is between two columns.
COLUMN_LEAST = 6


def open_session(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            help="The control plane, http(s)://HOST[:PORT]; or MODFLEET_URL, or as `modfleet login` kept it.",
            rich_help_panel=CONNECTION,
        ),
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Sign in with a password; or MODFLEET_USER.", rich_help_panel=CONNECTION)
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the password in its first line, - for the standard input; or MODFLEET_PASSWORD.",
            metavar="FILE",
            rich_help_panel=CONNECTION,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with a token in its first line, - for the standard input; or MODFLEET_TOKEN.",
            metavar="FILE",
            rich_help_panel=CONNECTION,
        ),
    ] = None,
    cacert: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the authority that signed the control plane's certificate; or MODFLEET_CACERT.",
            metavar="FILE",
            rich_help_panel=CONNECTION,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the API's own documents, for programs.", rich_help_panel=CONNECTION)
    ] = False,
) -> "Session":
    """An option counts wherever it stands: the one nearest to the command wins."""
    nearest: dict[str, Any] = ctx.meta.setdefault("modfleet.connection", {"as_json": False})
    given = {"url": url, "user": user, "password_file": password_file, "token_file": token_file, "cacert": cacert}
    nearest |= {name: value for name, value in given.items() if value is not None}
    nearest["as_json"] |= as_json
    return Session(Given(**{each.name: nearest.get(each.name) for each in fields(Given)}), as_json=nearest["as_json"])


class Session:
    """Nothing is read or connected before it is needed."""

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
        """Raises: `UsageError`."""
        if self._client is None:
            self._client = Client(self.access())
        return self._client

    def access(self) -> Access:
        return access_from(self.given, os.environ, ask=ask_password if is_a_person_there() else None)

    @cached_property
    def console(self) -> Console:
        return Console(highlight=False, emoji=False, markup=False)

    def show(self, document: Document, in_words: Callable[[Any], RenderableType]) -> None:
        """The document for a program, or what `in_words` makes of it for a person."""
        if self.as_json:
            self.print_json(document)
            return
        self.say(in_words(document))

    def print_json(self, document: Document, *, indent: int | None = 2) -> None:
        self.console.file.write(json.dumps(document, indent=indent, ensure_ascii=False) + "\n")
        self.console.file.flush()

    def print_file(self, text: str) -> None:
        """As it is: to be written into a file."""
        self.console.file.write(text)
        self.console.file.flush()

    def say(self, what: RenderableType) -> None:
        """Folded to the width of a terminal, and as wide as it comes anywhere else."""
        if self.console.is_terminal:
            self.console.print(what, soft_wrap=isinstance(what, str))
            return
        wide = Console(file=self.console.file, width=100_000, color_system=None, force_terminal=False, emoji=False)
        with wide.capture() as captured:
            wide.print(what, soft_wrap=True, markup=False, highlight=False)
        self.console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
        self.console.file.flush()

    def note(self, text: str) -> None:
        """Beside the answer: on the standard error."""
        typer.echo(printable(text), err=True)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Asks where a person is there. Raises: `CommandError` for a no."""
        if yes or self.as_json or not is_a_person_there():
            return
        if not typer.confirm(question, err=True):
            raise CommandError("Nothing was changed.")


def is_a_person_there() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask_password(user: str) -> str:
    """Without an echo."""
    return getpass(f"Password of {printable(user)}: ")


def printable(value: object) -> str:
    """Text of somebody else's, which could hold the control codes of a terminal; seconds with two digits."""
    text = "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
    return "".join(each if each.isprintable() else " " for each in text)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """The first column is what the next command is given: it is folded only where it would take the whole width."""
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
    """One object: a line for each of its fields."""
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


#: For commands that ask before they do what cannot be undone.
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Without a terminal there is no question either.")]
