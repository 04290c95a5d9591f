"""`modfleet events`: show the event log."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from modfleet.client import EVENTS, Document
from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, open_session, printable, table
from modfleet.failure import CommandError, UsageError

#: The least difference of two times: the API's `after` and `before` exclude the given time.
MOMENT = timedelta(microseconds=1)


@builds(session=open_session)
def events(
    session: Session,
    stream: Annotated[
        str | None,
        typer.Option(help="Only events of this stream, such as node:n1. * and ? are wildcards: 'placement:*:greet'."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--type", help="Only events of this type, such as rollout.started.v1. * and ? are wildcards: 'rollout.*'."
        ),
    ] = None,
    actor: Annotated[
        str | None, typer.Option(help="Only events of this actor, such as alice, node:n1 or system:relay.")
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(
            help="Only events that this request caused. The ID is correlation_id in JSON, and Request in the console."
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only events from this time on, such as 2026-11-23T16:20:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only events up to this time.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Number of events to show, the newest; 0 for all.")] = 100,
) -> None:
    """List the events of the log, the newest last: who did what and when."""
    first, last = _moment(since), _moment(until)

    # The control plane filters by exact values; it knows no wildcards.
    exact = {
        name: text
        for name, text in (("stream", stream), ("type", kind))
        if text is not None and not set("*?[").intersection(text)
    }
    if actor is not None:
        exact["actor"] = actor
    if request is not None:
        exact["correlation_id"] = request
    times = {"after": first and first - MOMENT, "before": last and last + MOMENT}
    query = exact | {name: moment.isoformat() for name, moment in times.items() if moment is not None}

    newest_first = session.api.every(EVENTS, {**query, "ordering": "-position"})
    matching = (
        each
        for each in newest_first
        if (stream is None or fnmatchcase(each["stream"], stream)) and (kind is None or fnmatchcase(each["type"], kind))
    )
    found = list(islice(matching, limit or None))
    if request is not None and not found:
        raise CommandError(
            f"No event has the correlation_id {request}. `modfleet events` shows the correlation_id of each event."
        )
    width = session.console.width if session.console.is_terminal else None
    session.show(found[::-1], lambda shown: _in_a_table(shown, width=width))


def _moment(text: str | None) -> datetime | None:
    """Return the time, in UTC if it has no zone. Raises: `UsageError`."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text} is not a time. Write it as 2026-11-23T16:20:00Z.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


#: Columns that a terminal narrower than `WIDE` has no room for.
_LONG = ("REQUESTED BY", "CORRELATION ID")
WIDE = 200
#: Spaces between two columns, and the least width of the last one, characters.
GAP, LEAST = 3, 20


def _in_a_table(found: list[Document], *, width: int | None) -> RenderableType:
    """Return the events as a table. `width`: that of the terminal; the last column is shortened to it. None: no limit."""
    columns = [name for name in _COLUMNS if width is None or width >= WIDE or name not in _LONG]
    rows = [[printable(_COLUMNS[name](each)) for name in columns] for each in found]
    if width is not None:
        at = columns.index("RECORDED AT")
        for row in rows:
            row[at] = f"{row[at][:10]} {row[at][11:19]}Z"
        others = sum(max(map(len, column)) + GAP for column in list(zip(columns, *rows, strict=True))[:-1])
        for row in rows:
            row[-1] = shortened(row[-1], max(width - others, LEAST))
    return table(columns, rows)


def in_pairs(data: Document) -> str:
    """Return the data as `name=value` pairs; a value that is an object or a list is JSON."""
    return " ".join(f"{name}={_in_a_word(value)}" for name, value in data.items())


def _in_a_word(value: Any) -> str:
    is_plain = isinstance(value, str) and value and not any(each in value for each in ' ="')
    return str(value) if is_plain else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


_COLUMNS: dict[str, Callable[[Document], object]] = {
    "POSITION": lambda each: each["position"],
    "RECORDED AT": lambda each: each["recorded_at"],
    "ACTOR": lambda each: each["actor"],
    "REQUESTED BY": lambda each: each["requested_by"],
    "CORRELATION ID": lambda each: each["correlation_id"],
    "STREAM": lambda each: each["stream"],
    "TYPE": lambda each: each["type"],
    "DATA": lambda each: in_pairs(each["data"]),
}
