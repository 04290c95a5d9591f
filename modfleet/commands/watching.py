"""Show a watched rollout: bars in a terminal, else one line or one JSON document for each change."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from eventstore import in_words
from modfleet.client import Document
from modfleet.commands.session import Session, in_a_line, printable, table
from modfleet.failure import ExitCode
from modfleet.watch import (
    FINAL,
    Snapshot,
    attempt_in_words,
    exit_code,
    failed_attempts,
    next_step,
    not_done,
    snapshots,
    waits_as_one_way,
)

#: What fits on a screen.
WAVES_SHOWN, FAILURES_SHOWN = 12, 10
#: Values of a strategy that have no effect.
_NOTHING: tuple[object, ...] = (None, [], "none", 0, False)
COLORS = {
    "passed": "green",
    "failed": "red",
    "gated": "yellow",
    "canceled": "red",
    "running": "cyan",
    "soaking": "cyan",
}


class View(Protocol):
    def show(self, snapshot: Snapshot) -> None: ...

    def lost(self, reason: str) -> None: ...

    def back(self) -> None: ...


def watch_rollout(session: Session, uid: str, *, timeout: float | None, until_the_end: bool) -> ExitCode:
    """Show the rollout until it ends or waits for a person. Return the exit code. Raises: as `snapshots`."""
    rollout: Document = None
    code: ExitCode | None = None
    try:
        with _view(session) as view:
            for snapshot in snapshots(session.api, uid, timeout=timeout, listener=view):
                rollout = snapshot.rollout
                view.show(snapshot)
                code = exit_code(rollout)
                if code is not None and (rollout["phase"] in FINAL or not until_the_end):
                    break
    except KeyboardInterrupt:
        session.note(f"The rollout continues. To watch it again, run `modfleet rollout watch {uid}`.")
        raise
    if nodes := not_done(session.api, rollout):
        code, first = ExitCode.FAILED, nodes[0]
        who = "the only node was skipped." if len(nodes) == 1 else f"all {len(nodes)} nodes were skipped. For example,"
        why = f"{first['reason']}: {first['message']}" if first["message"] else first["reason"]
        session.note(printable(f"Nothing was changed: {who} {first['node']}: {why}"))
    if step := next_step(rollout):
        session.note(step)
    return ExitCode.SUCCEEDED if code is None else code


@contextmanager
def _view(session: Session) -> Iterator[View]:
    if session.as_json:
        yield Documents(session)
    elif session.console.is_terminal and sys.stdout.isatty() and not session.console.is_dumb_terminal:
        screen = Screen()
        with Live(screen, console=session.console, refresh_per_second=4, redirect_stderr=False):
            yield screen
    else:
        yield Lines(session)


class Documents:
    """One JSON document for each change, each on one line."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._shown: Document = None

    def show(self, snapshot: Snapshot) -> None:
        if snapshot.rollout != self._shown:
            self._shown = snapshot.rollout
            self._session.print_json(snapshot.rollout, indent=None)

    def lost(self, reason: str) -> None:
        self._session.note(f"Connection lost, retrying: {reason}")

    def back(self) -> None:
        self._session.note("Reconnected.")


class Lines(Documents):
    """One line of text for each change."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        #: The last state that was shown, by subject. A state may come back: paused, resumed, paused again.
        self._last: dict[object, object] = {}

    def show(self, snapshot: Snapshot) -> None:
        rollout = snapshot.rollout
        self._say("title", None, title(rollout))
        for wave in rollout["waves"]:
            if wave["phase"] != "pending":
                self._say(wave["wave"], wave["phase"], f"wave {wave['wave']}: {wave['phase']}")
        for each in snapshot.failures:
            self._say(each["node"], (each["attempt"], each["phase"]), f"{each['node']}: {reason_of(each)}")
        for each in snapshot.causes:
            self._say(("cause", each), None, each)
        for each in snapshot.notes:
            self._say(("note", each), None, each)
        progress = rollout["progress"]
        reached = (rollout["phase"], progress["percent"] // 5)
        self._say("progress", reached, f"{rollout['phase']}: {counted(progress)}")
        if snapshot.waits:
            self._say("waits", snapshot.waits, snapshot.waits)
        else:
            self._last.pop("waits", None)
        if rollout["phase"] in FINAL:
            self._say("end", None, ending(rollout))
            if words := without_rollback(rollout):
                self._say("no rollback", None, words)

    def _say(self, subject: object, state: object, line: str) -> None:
        if subject not in self._last or self._last[subject] != state:
            self._last[subject] = state
            self._session.say(printable(line))


class Screen:
    """Drawn again at each refresh, so that the seconds since a lost connection count up."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._lost: tuple[float, str] | None = None

    def show(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def lost(self, reason: str) -> None:
        self._lost = (time.monotonic(), reason)

    def back(self) -> None:
        self._lost = None

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [] if self._snapshot is None else [picture(self._snapshot)]
        if self._lost is not None:
            since, reason = self._lost
            seconds = math.floor(time.monotonic() - since)
            parts.append(Text(printable(f"connection lost {seconds} s ago, retrying: {reason}"), style="yellow"))
        return Group(*parts)


def picture(snapshot: Snapshot) -> RenderableType:
    rollout = snapshot.rollout
    parts: list[RenderableType] = [Text(printable(title(rollout)), style="bold"), _bars(rollout)]
    parts += [Text(printable(each)) for each in (*timeline(rollout), *related_rollouts(rollout))]
    parts += [Text(printable(each), style="red") for each in snapshot.causes]
    parts += [Text(printable(each), style="yellow") for each in (*snapshot.notes, snapshot.waits) if each]
    if snapshot.failures:
        found = failed_attempts(snapshot.failures)
        parts += ["", failures_table(found[:FAILURES_SHOWN])]
        if (more := len(found) - FAILURES_SHOWN) > 0:
            parts.append(Text(f"and {more} more: modfleet rollout status {rollout['uid']}"))
    if rollout["phase"] in FINAL:
        parts.append(Text(printable(ending(rollout))))
    return Group(*parts)


def _bars(rollout: Document) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(width=30)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(overflow="fold")
    waves = rollout["waves"]
    first = _first_shown([each["phase"] for each in waves])
    if first:
        grid.add_row("", "", "", Text(f"earlier waves: {first}"))
    for each in waves[first : first + WAVES_SHOWN]:
        style = COLORS.get(each["phase"], "default")
        grid.add_row(f"wave {each['wave']}", _bar(each, style), _share(each), Text(_words(each), style=style))
    if (more := len(waves) - first - WAVES_SHOWN) > 0:
        grid.add_row("", "", "", Text(f"later waves: {more}"))
    progress = rollout["progress"]
    grid.add_row("all", _bar(progress, "blue"), _share(progress), Text(f"{rollout['phase']}{_eta(progress)}"))
    return grid


def _first_shown(phases: list[str]) -> int:
    """Return the first wave to show, so that the current wave fits on the screen."""
    current = next((number for number, phase in enumerate(phases) if phase not in {"passed", "skipped"}), len(phases))
    return max(0, min(current - 2, len(phases) - WAVES_SHOWN))


def _final(counters: Document) -> int:
    return int(counters["total"] - counters["scheduled"] - counters["queued"] - counters["running"])


def _bar(counters: Document, style: str) -> ProgressBar:
    return ProgressBar(
        total=max(counters["total"], 1), completed=_final(counters), complete_style=style, finished_style=style
    )


def _share(counters: Document) -> str:
    return f"{_final(counters)}/{counters['total']}"


def _words(wave: Document) -> str:
    failed = wave["failed"] + wave["timed_out"]
    return f"{wave['phase']}, {failed} failed" if failed else str(wave["phase"])


def _eta(progress: Document) -> str:
    seconds = progress["eta_seconds"]
    return f", about {math.ceil(seconds)} s left" if seconds else ""


def title(rollout: Document) -> str:
    # The previous version of the control plane sends no title.
    named = f"{rollout['action']} {rollout['module_name']} {rollout['version']}"
    return f"rollout {rollout['uid']}: {rollout.get('title', named)}"


def counted(progress: Document) -> str:
    nodes = "1 node" if progress["total"] == 1 else f"{progress['total']} nodes"
    words = [f"{_final(progress)} of {nodes} done ({progress['percent']} %)"]
    if failed := progress["failed"] + progress["timed_out"]:
        words.append(f"{failed} failed")
    # The previous version of the control plane does not send this.
    if before := progress.get("failed_before", 0):
        words.append(f"{before} failed before")
    return ", ".join(words)


def ending(rollout: Document) -> str:
    return f"{rollout['phase']} after {rollout['seconds']:g} s: {rollout['message']}"


def reason_of(operation: Document) -> str:
    return ": ".join(filter(None, (operation["phase"], operation["reason"], operation["message"])))


def start_in_words(rollout: Document) -> list[str]:
    """Return who started the rollout, when and from where, and the main values of its strategy."""
    strategy = rollout["strategy"]
    always = ("canary", "max_parallel", "max_failures", "on_failure")
    more = ("waves", "gate", "soak_seconds", "min_healthy", "approval", "start_at")
    shown = [*always, *(name for name in more if strategy.get(name) not in _NOTHING)]
    words = [f"{name} {in_a_line(strategy.get(name))}" for name in shown]
    by = f"started by {in_words(rollout['actor'])} at {rollout['created_at']}, origin {rollout['origin']}"
    even_if_used = ["even if the module is in use"] if rollout.get("even_if_used") else []
    return [by, *even_if_used, f"strategy: {', '.join(words)}"]


def timeline(rollout: Document) -> list[str]:
    """Return what stopped the rollout and what people did, the oldest first."""
    # The previous version of the control plane sends none.
    entries = [*rollout.get("stops", []), *rollout.get("actions", [])]
    return [each["text"] for each in sorted(entries, key=lambda each: str(each["at"]))]


def related_rollouts(rollout: Document) -> list[str]:
    """Return the rollouts of its retries and rollback, the nodes that its rollback left unchanged, and that there is no rollback."""
    # The previous version of the control plane does not send all of them.
    named = {
        "retry of": [rollout["retry_of"]],
        "rollback of": [rollout["rollback_of"]],
        "retried by": rollout.get("retried_by", []),
        "failback of": [rollout.get("failback_of")],
        "rolled back by": [rollout.get("rolled_back_by")],
        "failed back by": [rollout.get("failed_back_by")],
    }
    lines = [f"{words} rollout {', '.join(uids)}" for words, uids in named.items() if all(uids) and uids]
    left = rollout.get("left_alone", {}).get("text")
    return list(filter(None, (*lines, left, without_rollback(rollout))))


def without_rollback(rollout: Document) -> str:
    """Return that there is no rollback, unless the rollout waits because of that: the wait says it. Empty if there is one."""
    # The previous version of the control plane does not send this.
    if not rollout.get("one_way") or waits_as_one_way(rollout):
        return ""
    return f"there is no rollback: `modfleet rollout why {rollout['uid']}` shows the reason"


def failures_table(found: list[tuple[Document, Document]]) -> Table:
    columns = ("FAILED NODE", "ATTEMPT", "PHASE", "PHASE NOW", "REASON", "MESSAGE")
    return table(
        columns,
        (
            (node["node"], attempt_in_words(each), each["phase"], node["phase"], each["reason"], each["message"])
            for node, each in found
        ),
    )


def static_picture(snapshot: Snapshot, console: Console) -> RenderableType:
    """Return what `status` shows: bars in a terminal, else a table of the waves."""
    rollout = snapshot.rollout
    started = list(map(printable, start_in_words(rollout)))
    if console.is_terminal:
        return Group(Text("\n".join(started)), picture(snapshot))
    waves = table(
        ("WAVE", "PHASE", "DONE", "TOTAL", "FAILED"),
        (
            (each["wave"], each["phase"], _final(each), each["total"], each["failed"] + each["timed_out"])
            for each in rollout["waves"]
        ),
    )
    state = f"{rollout['phase']}: {rollout['message']}"
    waits = [*snapshot.notes, *([snapshot.waits] if snapshot.waits else [])]
    lines = [title(rollout), *started, state, *waits, *timeline(rollout), *related_rollouts(rollout), *snapshot.causes]
    parts: list[RenderableType] = [Text("\n".join(map(printable, lines))), waves]
    found = failed_attempts(snapshot.failures)
    return Group(*parts, failures_table(found)) if found else Group(*parts)
