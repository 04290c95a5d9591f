"""`modfleet agent`: run the agent of this node. It uses argparse, which the base installation has."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from modfleet.failure import ExitCode

SUMMARY = "Run the agent of this node until SIGTERM. Each server needs one agent on its host."
DESCRIPTION = f"""{SUMMARY}

The agent reads its settings from environment variables. Required are MODFLEET_NODE, MODFLEET_BROKER_URL,
MODFLEET_CONTROL_URL, MODFLEET_SERVER_URL, MODFLEET_MODULES_DIR and MODFLEET_JOURNAL_DIR. docs/reference/settings.md
describes all settings. The agent opens no port: it reads the queue of its node from the broker.

`modfleet agent run` is the same. `modfleet agent install` enrols a node and installs its agent; `modfleet agent uninstall` removes it.
"""
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class Parser(argparse.ArgumentParser):
    """Print each error as one line to standard error."""

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
        help="Lowest level to log: DEBUG, INFO, WARNING or ERROR. Default: INFO.",
    )
    made.add_argument(
        "--check", action="store_true", help="Check that the agent can start, and exit. It does not connect."
    )
    return made


def main(words: Sequence[str]) -> None:
    """Replace this process by the agent's worker, or exit."""
    if words[:1] in (["install"], ["uninstall"]):
        from modfleet.enrol import cli

        (cli.install_main if words[0] == "install" else cli.uninstall_main)(words[1:])
    given = parser().parse_args(words[1:] if words[:1] == ["run"] else words)
    node = _require_settings()
    if given.check:
        _require_worker(node)
        print(f"The agent of {node} can start.")  # noqa: T201  # the answer
        sys.exit(ExitCode.SUCCEEDED)
    command = ["-m", "celery", "-A", "rollout.agent", "worker", "-l", given.log_level]
    # The worker replaces this process, so that it receives the signals of a service manager.
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606


def _require_settings() -> str:
    """Return the name of the node. Exit if a setting is missing or wrong."""
    from rollout.agent.settings import SettingsError, settings_from

    try:
        return settings_from(os.environ).node
    except SettingsError as error:
        _end(f"{error} `modfleet agent --help` lists the required settings.", ExitCode.USAGE)


def _require_worker(node: str) -> None:
    """Make all that the worker makes before it connects, with the broker's transport. Exit if that fails."""
    try:
        from rollout.agent.celery import agent_settings, app

        with warnings.catch_warnings(action="ignore"):  # Celery warns of root, but the worker may run as another user
            app.Worker(loglevel="WARNING")
    except Exception as error:  # noqa: BLE001  # any error would end the worker too
        _end(f"The agent of {node} cannot start: {type(error).__name__}: {error}".rstrip(".") + ".", ExitCode.FAILED)
    for directory in (agent_settings.modules_dir, agent_settings.journal_dir):
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            _end(f"The agent of {node} cannot start: no permission to write to {directory}.", ExitCode.FAILED)


def _end(sentence: str, code: ExitCode) -> NoReturn:
    print(" ".join(sentence.split()), file=sys.stderr)  # noqa: T201  # the person who typed the command reads it
    sys.exit(code)
