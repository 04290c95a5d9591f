"""`modfleet agent`: run the agent of this node. It uses argparse, which the base installation has."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from modfleet.arguments import Parser, end
from modfleet.failure import CommandError, ExitCode

SUMMARY = "Install, check, run or uninstall the agent of a node. Each server needs one agent on its host."
DESCRIPTION = f"""{SUMMARY}

Without another command, `modfleet agent` runs the agent of this node until SIGTERM. The agent reads its settings from environment variables. Required are MODFLEET_NODE, MODFLEET_BROKER_URL,
MODFLEET_CONTROL_URL, MODFLEET_SERVER_URL, MODFLEET_MODULES_DIR and MODFLEET_JOURNAL_DIR. docs/reference/settings.md
describes all settings. The agent opens no port: it reads the queue of its node from the broker.

`modfleet agent run` does the same. `modfleet agent install` enrols a node and installs its agent, `modfleet agent uninstall`
removes it, and `modfleet agent doctor` checks this host, its server, the broker and the control plane.
"""
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


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
        "--token-file",
        type=Path,
        metavar="FILE",
        help="For containers: join with the join token in FILE, if the node has not joined yet, and use the settings from the "
        "control plane, such as MODFLEET_BROKER_URL. They are kept next to MODFLEET_IDENTITY_FILE.",
    )
    return made


def main(words: Sequence[str]) -> None:
    """Replace this process by the agent's worker, or exit."""
    if words[:1] in (["install"], ["uninstall"]):
        from modfleet.enrol import cli

        (cli.install_main if words[0] == "install" else cli.uninstall_main)(words[1:])
    if words[:1] == ["doctor"]:
        try:
            from modfleet.commands import doctor
        except ImportError as error:  # a package is missing, or broken
            end(f"The agent cannot start: {error}.", ExitCode.FAILED)
        doctor.main(words[1:])
    given = parser().parse_args(words[1:] if words[:1] == ["run"] else words)
    if given.token_file is not None:
        _join(given.token_file)
    _require_settings()
    command = ["-m", "celery", "-A", "rollout.agent", "worker", "-l", given.log_level]
    # The worker replaces this process, so that it receives the signals of a service manager.
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606


def _join(token_file: Path) -> None:
    """Add the settings from the control plane to the environment, or exit. A variable that is set has precedence."""
    from modfleet.enrol.join import joined_settings

    try:
        settings = joined_settings(os.environ, token_file)
    except CommandError as error:
        end(str(error), error.code)
    except OSError as error:
        end(f"{error.filename or 'The disk'}: {error.strerror or error}.", ExitCode.FAILED)
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _require_settings() -> None:
    """Exit if a setting is missing or wrong."""
    from rollout.agent.settings import SettingsError, require_startable, settings_from

    try:
        require_startable(settings_from(os.environ))
    except SettingsError as error:
        end(f"{error} `modfleet agent --help` lists the required settings.", ExitCode.USAGE)
