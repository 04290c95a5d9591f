"""`modfleet agent`: the worker of this node. Read with argparse, so that it needs the base installation alone."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from modfleet.failure import ExitCode

SUMMARY = "Start this node's worker, and keep it until SIGTERM. Run one beside each server."
DESCRIPTION = f"""{SUMMARY}

Its settings are environment variables. Needed: MODFLEET_NODE, MODFLEET_BROKER_URL, MODFLEET_CONTROL_URL,
MODFLEET_SERVER_URL, MODFLEET_MODULES_DIR, MODFLEET_JOURNAL_DIR. It serves no port: it takes its node's queue from
the broker.
"""
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class Parser(argparse.ArgumentParser):
    """Every error is one sentence on the standard error."""

    def error(self, message: str) -> NoReturn:
        _end(f"{message.removesuffix('.')}. See `{self.prog} --help`.", ExitCode.USAGE)


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="modfleet agent",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--log-level",
        type=str.upper,
        choices=LEVELS,
        default="INFO",
        metavar="LEVEL",
        help="DEBUG, INFO (the default), WARNING or ERROR.",
    )
    made.add_argument(
        "--check", action="store_true", help="Make the worker, say whether it can start, and end without connecting."
    )
    return made


def main(words: Sequence[str]) -> None:
    """Does not return: the worker takes the place of this process."""
    given = parser().parse_args(words)
    node = _require_settings()
    if given.check:
        _require_worker(node)
        print(f"{node} has all that it needs.")  # noqa: T201  # the answer
        sys.exit(ExitCode.SUCCEEDED)
    command = ["-m", "celery", "-A", "rollout.agent", "worker", "-l", given.log_level]
    # In the place of this process: signals of a service manager reach the worker itself.
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606


def _require_settings() -> str:
    """The node's name."""
    from rollout.agent.settings import SettingsError, settings_from

    try:
        return settings_from(os.environ).node
    except SettingsError as error:
        _end(f"{error} See `modfleet agent --help` for the settings that an agent needs.", ExitCode.USAGE)


def _require_worker(node: str) -> None:
    """Everything that the worker imports and makes before it connects, the broker's transport too, is made here."""
    try:
        from rollout.agent.celery import agent_settings, app

        with warnings.catch_warnings(action="ignore"):  # Celery's about root: another user runs the worker
            app.Worker(loglevel="WARNING")
    except Exception as error:  # noqa: BLE001  # whatever the worker would end with
        _end(f"{node} cannot start: {type(error).__name__}: {error}".rstrip(".") + ".", ExitCode.FAILED)
    for folder in (agent_settings.modules_dir, agent_settings.journal_dir):
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            _end(f"{node} cannot start: {folder} cannot be written.", ExitCode.FAILED)


def _end(sentence: str, code: ExitCode) -> NoReturn:
    print(" ".join(sentence.split()), file=sys.stderr)  # noqa: T201  # the person who typed the command reads it
    sys.exit(code)
