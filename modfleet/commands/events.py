"""`modfleet events`: show the event log."""

import json
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import islice
from typing import Annotated

import typer
from rich.console import RenderableType

from modfleet.client import EVENTS, Document
from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, open_session, table
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
    session.show(found[::-1], _in_a_table)


def _moment(text: str | None) -> datetime | None:
    """Return the time, in UTC if it has no zone. Raises: `UsageError`."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text} is not a time. Write it as 2026-11-23T16:20:00Z.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _in_a_table(found: list[Document]) -> RenderableType:
    return table(
        ("POSITION", "RECORDED AT", "ACTOR", "REQUESTED BY", "CORRELATION ID", "STREAM", "TYPE", "DATA"),
        (
            (
                each["position"],
                each["recorded_at"],
                each["actor"],
                each["requested_by"],
                each["correlation_id"],
                each["stream"],
                each["type"],
                json.dumps(each["data"], ensure_ascii=False),
            )
            for each in found
        ),
    )
