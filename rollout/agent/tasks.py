"""The agent's only Celery task: parse the command, carry it out, send the reports."""

import logging
from functools import partial
from typing import Any

import msgspec

from rollout.agent.celery import app
from rollout.agent.failure import MalformedCommandError
from rollout.agent.operations.announce import Announcer
from rollout.agent.operations.runner import Runner
from rollout.logs import about
from rollout.messages import EXECUTE, Command, Phase, Reason, Report, from_json
from rollout.signing import Purpose, UntrustedError

log = logging.getLogger(__name__)


@app.task(name=EXECUTE)
def execute(command: Any = None, signed: Any = None) -> None:
    """Carry out a `Command`: the one in the envelope `signed`, or `command` if this node has no identity.

    May run more than once. A command that cannot be read is refused with a report if it names its operation, and dropped
    otherwise. An untrusted command is dropped.
    """
    runner: Runner = app.runner
    announce = Announcer(app.publisher)
    try:
        if app.trust.identity is not None:
            _, command = app.trust.opened(signed, Purpose.EXECUTE)
        read = from_json(Command, command)
        of_request = {"request_id": read.correlation_id, "rollout": read.rollout}
        with about(**of_request, node=read.node, module_name=read.module_name):
            last = runner.execute(read, report=partial(_announce, announce))
        if last and (last.phase is Phase.SCHEDULED or last.restart):
            app.heartbeats.soon()  # with the state of the server for which the operation waits, or which is in service again
    except UntrustedError as error:
        log.error("Dropped a command: %s", error)  # noqa: TRY400 - the traceback says nothing more
    except (msgspec.ValidationError, MalformedCommandError) as error:
        log.error("Dropped a command: %s", error)  # noqa: TRY400 - likewise
        if (refusal := _refusal(command, str(error))) is not None and refusal.node == runner.node.settings.node:
            announce(refusal)


def _announce(announce: Announcer, report: Report) -> None:
    announce(report)
    if report.phase is Phase.RESTARTING:
        app.heartbeats.soon()  # it says that the node is in maintenance


def _refusal(command: Any, error: str) -> Report | None:
    """Return the report of a command that cannot be read. None if the command does not name its operation."""
    try:
        named = {name: command[name] for name in ("rollout", "node", "module_name", "generation", "attempt")}
        message = f"This agent does not understand the command ({error}). Upgrade the agent, then retry."
        return from_json(Report, {**named, "phase": Phase.FAILED, "reason": Reason.AGENT_ERROR, "message": message})
    except (TypeError, KeyError, msgspec.ValidationError):
        return None
