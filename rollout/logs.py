"""Lines of the log, for people or as JSON, with what they are about and without secrets. Knows no Django.

Control plane, workers, relays and agents write them alike. A field is only there where it is known.
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

#: Names of what a line may carry beside its message: as `extra`, or from `about`. Nothing else of a record is written.
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

#: Credentials that a library's message may hold: of URLs, headers, webhooks, our download links and presigned ones.
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
    """Each line that is written inside carries these fields, such as `rollout` and `node`."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def note_position(position: int) -> None:
    """The newest event that was appended here, for the lines that follow inside of `noting_position`."""
    if _position.get() is not None:
        _position.set(position)


@contextmanager
def noting_position() -> Iterator[None]:
    """What is appended inside is told by the lines inside alone."""
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
    """Those of `FIELDS` that are known of the record."""
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
        told = "".join(f" {name}={value}" for name, value in known.items())
        return without_secrets(f"{first}{told}{newline}{rest}")


class JsonLineFormatter(JsonFormatter):
    """For programs: an object on one line; `exception` is a traceback."""

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


#: Logger of the lines about requests.
ACCESS = "modfleet.access"
LINE = "%(asctime)s %(levelname)s %(name)s [%(request_id)s]: %(message)s"


def formatter(log_format: str) -> logging.Formatter:
    """`line` or `json`."""
    return JsonLineFormatter() if log_format == "json" else LineFormatter(LINE)
