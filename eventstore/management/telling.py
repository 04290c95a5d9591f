"""What a command says on a terminal while it works, and its answer in the end: a sentence, or JSON for a program."""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError


class Telling:
    """Progress goes to standard error, and only if that is a terminal."""

    def __init__(self, command: BaseCommand, *, as_json: bool, to_stderr: bool = False) -> None:
        self._as_json = as_json
        self._out = command.stderr if to_stderr else command.stdout
        self._style = None if not to_stderr else str  # stderr is red by default
        self._progress = sys.stderr if sys.stderr.isatty() else None

    def count(self, done: int) -> None:
        if self._progress is not None:
            self._progress.write(f"\r{done} events")
            self._progress.flush()

    def answer(self, sentence: str, **facts: Any) -> None:
        self._clear()
        self._out.write(json.dumps({"ok": True, **facts}) if self._as_json else sentence, self._style)

    def refusal(self, error: Exception, **facts: Any) -> CommandError:
        """To be raised: the command ends with 1."""
        self._clear()
        if self._as_json:
            self._out.write(json.dumps({"ok": False, "error": str(error), **facts}), self._style)
        return CommandError(str(error))

    def _clear(self) -> None:
        if self._progress is not None:
            self._progress.write("\r\x1b[K")
