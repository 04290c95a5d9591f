"""The output of the commands: progress on a terminal, and one result at the end, as a sentence or as JSON."""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError


def events_in_words(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"


class Output:
    """Where a command writes. Progress goes to standard error, and only to a terminal."""

    def __init__(self, command: BaseCommand, *, as_json: bool, to_stderr: bool = False) -> None:
        self._as_json = as_json
        self._out = command.stderr if to_stderr else command.stdout
        self._style = None if not to_stderr else str  # stderr is red by default
        self._terminal = sys.stderr if sys.stderr.isatty() else None

    def progress(self, done: int) -> None:
        """Show how many events are done."""
        if self._terminal is not None:
            self._terminal.write(f"\r{events_in_words(done)}")
            self._terminal.flush()

    def result(self, sentence: str, **facts: Any) -> None:
        """Write the sentence, or the facts as JSON."""
        self._clear()
        self._out.write(json.dumps({"ok": True, **facts}) if self._as_json else sentence, self._style)

    def failure(self, error: Exception, **facts: Any) -> CommandError:
        """Write the error as JSON, and return the exception to raise. The command then exits with 1."""
        self._clear()
        if self._as_json:
            self._out.write(json.dumps({"ok": False, "error": str(error), **facts}), self._style)
        return CommandError(str(error))

    def _clear(self) -> None:
        if self._terminal is not None:
            self._terminal.write("\r\x1b[K")
