"""Log lines, for people or as JSON, with context fields and without secrets. Knows no Django.

Control plane, workers, relays and agents use the same format. A field is left out if it is not known.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from eventstore import ANONYMOUS, SYSTEM, current_actor, current_request, shown

#: The fields that a line may have besides its message: from `extra`, or from `about`. Other fields are not written.
FIELDS = (
    "request_id",
    "actor",
    "rollout",
    "node",
    "module_name",
    "position",
    "hash",
    "method",
    "route",
    "status",
    "seconds",
)

_about: ContextVar[dict[str, str]] = ContextVar("about", default={})  # noqa: B039  # never changed, only replaced
_position: ContextVar[int | None] = ContextVar("position", default=None)

#: Credentials that a library's message may contain: in URLs, headers, webhooks, our download links and presigned links.
_SECRETS = (
    (re.compile(r"(?<=://)[^\s/@]*:[^\s/@]*@"), "***@"),
    (re.compile(r"(?i)\b(basic|bearer|jwt)\s+[A-Za-z0-9+/=._~-]{8,}"), r"\1 ***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"), "***"),
    (re.compile(r"whsec_[A-Za-z0-9+/=]+"), "whsec_***"),
    (re.compile(r"(/v2/downloads/)[^\s\"'<>]+"), r"\1***"),
    (
        re.compile(
            r"(?i)([?&][^=\s&]*(?:signature|credential|token|key|secret|password|expires)[^=\s&]*=)[^&\s\"'<>]+"
        ),
        r"\1***",
    ),
    (
        re.compile(r"(?i)([\"']?\b(?:password|secret|secret_key|token)[\"']?\s*[:=]\s*)(\"[^\"]*\"|'[^']*'|[^\s,;}]+)"),
        r"\1***",
    ),
)


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Add these fields, such as `rollout` and `node`, to each line that is written in the block."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def note_position(position: int) -> None:
    """Set the position of the newest appended event, for later lines in a `noting_position` block."""
    if _position.get() is not None:
        _position.set(position)


@contextmanager
def noting_position() -> Iterator[None]:
    """Give a position only to the lines in the block."""
    token = _position.set(0)
    try:
        yield
    finally:
        _position.reset(token)


def without_secrets(text: str) -> str:
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def known_fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of the record that are known."""
    actor = current_actor()
    known: dict[str, Any] = {
        "request_id": current_request(),
        "actor": "" if actor in {SYSTEM, ANONYMOUS} else shown(actor),
        "position": _position.get() or None,
        **_about.get(),
    }
    for name in FIELDS:
        if name in record.__dict__:
            known[name] = record.__dict__[name]
    return {name: known[name] for name in FIELDS if known.get(name) not in (None, "", "-")}


class LineFormatter(logging.Formatter):
    """For people: `2026-11-23 16:20:00,000 INFO rollout.process.advance [request]: message rollout=...`."""

    def format(self, record: logging.LogRecord) -> str:
        known = known_fields(record)
        record.request_id = known.pop("request_id", "-")
        if record.name == ACCESS:
            known = {name: value for name, value in known.items() if name in {"actor", "position"}}
        line = super().format(record)
        first, newline, rest = line.partition("\n")
        fields = "".join(f" {name}={_escaped(str(value))}" for name, value in known.items())
        return without_secrets(f"{first}{fields}{newline}{rest}")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is from logging
        # Celery logs ids that a foreign message contains: a line end in one of them must not look like another line.
        record.message = _escaped(record.message)
        return super().formatMessage(record)


def _escaped(text: str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class JsonLineFormatter(JsonFormatter):
    """For programs: one JSON object per line. `exception` is a traceback."""

    def __init__(self) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
            **{
                name: without_secrets(value) if isinstance(value, str) else value
                for name, value in known_fields(record).items()
            },
        }
        if record.exc_info:
            line["exception"] = without_secrets("".join(self.formatException(record.exc_info)))
        if record.stack_info:
            line["stack"] = without_secrets("".join(self.formatStack(record.stack_info)))
        return self.serialize_log_record(line)


#: Logger of the lines for requests.
ACCESS = "modfleet.access"
LINE = "%(asctime)s %(levelname)s %(name)s [%(request_id)s]: %(message)s"


def formatter(log_format: str) -> logging.Formatter:
    """Return the formatter for `line` or `json`."""
    return JsonLineFormatter() if log_format == "json" else LineFormatter(LINE)
