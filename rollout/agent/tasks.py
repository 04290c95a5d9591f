"""The agent's one Celery task: parse the command, run it, send the reports."""

import logging
from typing import Any

import msgspec

from rollout.agent.announce import Announcer
from rollout.agent.celery import app
from rollout.agent.failure import MalformedCommandError
from rollout.agent.runner import Runner
from rollout.logs import about
from rollout.messages import EXECUTE, Command, from_json

log = logging.getLogger(__name__)


@app.task(name=EXECUTE)
def execute(command: Any = None) -> None:
    """Carries out `command`, a `Command` as JSON; may run more than once. What cannot be understood is dropped."""
    runner: Runner = app.runner
    try:
        read = from_json(Command, command)
        with about(rollout=read.rollout, node=read.node, module_name=read.module_name):
            runner.execute(read, report=Announcer(app.carrier))
    except (msgspec.ValidationError, MalformedCommandError) as error:
        log.error("Dropped a command: %s", error)  # noqa: TRY400 - the traceback says nothing more
