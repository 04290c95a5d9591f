"""The agent's one Celery task: parse the command, run it, send the reports."""

import logging
from typing import Any

import msgspec

from rollout.agent.announce import Announcer
from rollout.agent.celery import app
from rollout.agent.failure import MalformedCommandError
from rollout.agent.runner import Runner
from rollout.logs import about
from rollout.messages import EXECUTE, Command, Phase, Reason, Report, from_json

log = logging.getLogger(__name__)


@app.task(name=EXECUTE)
def execute(command: Any = None) -> None:
    """Carries out `command`, a `Command` as JSON; may run more than once. What cannot be understood is refused with a
    report if it says of which operation, and dropped otherwise."""
    runner: Runner = app.runner
    announce = Announcer(app.publisher)
    try:
        read = from_json(Command, command)
        of_request = {"request_id": read.correlation_id, "rollout": read.rollout}
        with about(**of_request, node=read.node, module_name=read.module_name):
            runner.execute(read, report=announce)
    except (msgspec.ValidationError, MalformedCommandError) as error:
        log.error("Dropped a command: %s", error)  # noqa: TRY400 - the traceback says nothing more
        if (refusal := _refusal(command, str(error))) is not None and refusal.node == runner.node.settings.node:
            announce(refusal)


def _refusal(command: Any, error: str) -> Report | None:
    """None if it does not say for which operation it is."""
    try:
        said = {name: command[name] for name in ("rollout", "node", "module_name", "generation", "attempt")}
        message = f"This agent does not understand the command ({error}). Upgrade the agent, then retry."
        return from_json(Report, {**said, "phase": Phase.FAILED, "reason": Reason.AGENT_ERROR, "message": message})
    except (TypeError, KeyError, msgspec.ValidationError):
        return None
