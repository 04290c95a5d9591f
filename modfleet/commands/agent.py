"""`modfleet agent`: the worker of this node."""

import os
import sys
from typing import Annotated

import typer

from modfleet.failure import UsageError


def agent(
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    check: Annotated[bool, typer.Option("--check", help="Only say whether the settings can be used.")] = False,
) -> None:
    """Start this node's worker, and keep it until SIGTERM. Run one beside each server.

    Its settings are environment variables. Needed: MODFLEET_NODE, MODFLEET_BROKER_URL, MODFLEET_CONTROL_URL,
    MODFLEET_SERVER_URL, MODFLEET_MODULES_DIR, MODFLEET_JOURNAL_DIR. It serves no port: it takes its node's queue from
    the broker.
    """
    from rollout.agent.settings import SettingsError, settings_from

    try:
        settings = settings_from(os.environ)
    except SettingsError as error:
        raise UsageError(f"{error} See `modfleet agent --help` for the settings that an agent needs.") from error
    if log_level.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
        raise UsageError(f"{log_level} is no --log-level: use DEBUG, INFO, WARNING or ERROR.")
    if check:
        typer.echo(f"{settings.node} has all that it needs.")
        return
    words = ["-A", "rollout.agent", "worker", "-l", log_level.upper()]
    # In the place of this process: signals of a service manager reach the worker itself.
    os.execv(sys.executable, [sys.executable, "-m", "celery", *words])  # noqa: S606
