"""The names of queues and of the Celery task."""

#: The Celery task that every agent registers. Its keyword argument is `signed`, the envelope of a `Command`; for a node that
#: has not joined it is `command`, a `Command` as JSON.
EXECUTE = "modfleet.execute"
#: Queue of the reports, read by the control workers.
REPORTS = "control"
#: Queue of the heartbeats, read by the control workers; a heartbeat expires after one interval.
HEARTBEATS = "control.beats"


def queue_for(node: str) -> str:
    """Return the name of the queue that the agent of `node` consumes."""
    return f"node.{node}"


def cancel_queue_for(node: str) -> str:
    """Return the name of the queue from which the agent of `node` receives cancels, also during an operation."""
    return f"cancel.{node}"
