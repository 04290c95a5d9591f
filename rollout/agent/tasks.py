"""The agent's one Celery task: parse the command, run it, send the reports."""

import logging
from typing import Any

import msgspec

from rollout.agent.carrier import Carrier
from rollout.agent.celery import app
from rollout.agent.failure import MalformedCommandError
from rollout.agent.runner import Runner
from rollout.messages import EXECUTE, REPORTS, Command, Report, from_json

log = logging.getLogger(__name__)

#: Seconds that a report waits for a broker that is away. A lost final report is answered again from the journal.
FINAL_PATIENCE = 30.0
PHASE_PATIENCE = 2.0


@app.task(name=EXECUTE)
def execute(command: Any = None) -> None:
    """Carries out `command`, a `Command` as JSON; may run more than once. What cannot be understood is dropped."""
    runner: Runner = app.runner
    carrier: Carrier = app.carrier

    def send(report: Report) -> None:
        carrier.send(report, queue=REPORTS, patience=FINAL_PATIENCE if report.phase.is_final else PHASE_PATIENCE)

    try:
        runner.execute(from_json(Command, command), report=send)
    except (msgspec.ValidationError, MalformedCommandError) as error:
        log.error("Dropped a command: %s", error)  # noqa: TRY400 - the traceback says nothing more
