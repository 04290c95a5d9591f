"""Cells of pages: links, badges, digests, times, bars. Each function escapes its arguments."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from django.contrib.admin.utils import quote
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode

NOTHING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    url: str
    text: str


def page_url(page: str, key: object) -> str:
    """Return the URL of a row's page; `page` is `<app>_<model>`."""
    return reverse(f"admin:{page}_change", args=[quote(str(key))])


def list_url(page: str, lookups: Mapping[str, Any]) -> str:
    return f"{reverse(f'admin:{page}_changelist')}?{urlencode(lookups)}"


def module_url(module_name: str, version: int) -> str:
    """Return the URL of the module's page, at the version."""
    return f"{reverse('admin:module', args=[module_name])}#version-{version}"


def events_link(stream: str) -> Link:
    """Return a link to the events of the stream."""
    return Link(url=list_url("eventstore_storedevent", {"q": stream}), text="Events")


def link(url: str, text: object) -> str:
    return format_html('<a href="{}">{}</a>', url, text)


def badge(value: str) -> str:
    """Return a phase or state with the sign and colour of its meaning."""
    if not value:
        return NOTHING
    meaning = MEANINGS.get(value, Meaning.QUIET)
    return format_html('<span class="badge badge-{} is-{}">{}</span>', value, meaning, value.replace("_", " "))


class Meaning(StrEnum):
    """The meaning of a phase or state. `console.css` has a colour and a sign for each."""

    GOOD = "good"
    BAD = "bad"
    WARNING = "warning"
    BUSY = "busy"
    QUIET = "quiet"


#: The meaning of each phase and state; others are quiet.
MEANINGS: Mapping[str, Meaning] = {
    **dict.fromkeys(["succeeded", "passed", "in_sync", "online", "enabled", "signed", "open", "pass"], Meaning.GOOD),
    **dict.fromkeys(
        [
            "failed",
            "fail",
            "timed_out",
            "error",
            "missing",
            "offline",
            "degraded",
            "rollback_failed",
            "rejected",
            "disabled",
            "revoked",
        ],
        Meaning.BAD,
    ),
    **dict.fromkeys(
        [
            "completed_with_failures",
            "drifted",
            "draining",
            "aborted",
            "aborting",
            "rolled_back",
            "paused",
            "gated",
            "differing",
        ],
        Meaning.WARNING,
    ),
    **dict.fromkeys(["pending_approval", "frozen", "unsigned", "warn"], Meaning.WARNING),
    **dict.fromkeys(["running", "soaking", "pending", "queued", "fetching", "verifying", "installing"], Meaning.BUSY),
    **dict.fromkeys(["loading", "restarting", "probing", "settling", "removing"], Meaning.BUSY),
    **dict.fromkeys(["canceling", "rolling_back"], Meaning.BUSY),
}


#: The counters of a rollout that a bar shows, in order, and their meanings.
BAR_PARTS: Mapping[str, Meaning] = {
    "succeeded": Meaning.GOOD,
    "skipped": Meaning.QUIET,
    "rolled_back": Meaning.WARNING,
    "failed": Meaning.BAD,
    "timed_out": Meaning.BAD,
    "canceled": Meaning.QUIET,
    "running": Meaning.BUSY,
    "queued": Meaning.BUSY,
    "scheduled": Meaning.QUIET,
}
_UNFINISHED = ("running", "queued", "scheduled")


def bar(row: Any) -> str:
    """Return a rollout's progress: a bar with a part for each counter, the percentage and the numbers in words.

    Nodes that failed before are counted in another counter too.
    """
    counters, total = {name: getattr(row, name) for name in BAR_PARTS}, row.total
    final = sum(count for name, count in counters.items() if name not in _UNFINISHED)
    percent = 100 * final // total if total else 100
    parts = format_html_join(
        "",
        '<rect class="is-{}" x="{}" width="{}" height="8"/>',
        _widths([(BAR_PARTS[name], counters[name]) for name in BAR_PARTS if name != "scheduled"], total),
    )
    numbers = {**counters, "failed before": row.failed_before}
    words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in numbers.items() if count)
    return format_html(
        '<span class="bar"><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">{}</svg> {} % finished '
        '<span class="numbers">of {}: {}</span></span>',
        parts,
        percent,
        f"{total} node{'s' * (total != 1)}",
        words or "none",
    )


def _widths(parts: Iterable[tuple[Meaning, int]], total: int) -> Iterator[tuple[Meaning, str, str]]:
    """Yield the meaning, start and width of each part that is not empty, in percent."""
    start = 0.0
    for meaning, count in parts:
        width = 100 * count / total if total else 0
        if width:
            yield meaning, f"{start:g}", f"{width:g}"
        start += width


def digest(value: str) -> str:
    """Return the beginning of a digest, with all of it in the tooltip."""
    return format_html('<code title="{}">{}</code>', value, value[:12]) if value else NOTHING


def ago(moment: datetime | None) -> str:
    """Return how long ago the moment was, with the exact time in the tooltip."""
    if moment is None:
        return NOTHING
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', moment.isoformat(), _exactly(moment), naturaltime(moment)
    )


def exactly(moment: datetime | None) -> str:
    """Return the exact time, and how long ago it was."""
    if moment is None:
        return NOTHING
    return format_html('<time datetime="{}">{}</time> ({})', moment.isoformat(), _exactly(moment), naturaltime(moment))


def _exactly(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float | None) -> str:
    """Return a duration such as `0.42 s` or `3 min 20 s`. No line breaks in it."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.2f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s".replace(" ", "\N{NO-BREAK SPACE}")


def preformatted(text: str) -> str:
    return format_html("<pre>{}</pre>", text)


def prose(text: str) -> str:
    """Return a sentence in which the words between backticks are code."""
    parts = re.split("`([^`]+)`", text)
    return format_html_join(
        "", "{}{}", ((each, _code(code)) for each, code in zip(parts[::2], [*parts[1::2], ""], strict=True))
    )


def _code(text: str) -> str:
    return format_html("<code>{}</code>", text) if text else ""
