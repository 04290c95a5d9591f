"""Starts a rollout, or joins the one in progress that does the same: a client may repeat its call."""

from collections.abc import Callable

from rollout.domain.errors import RolloutInProgressError
from rollout.domain.request import RolloutRequest
from rollout.queries.operations import operation_row
from rollout.queries.rollouts import rollout_row
from rollout.services.start import start_rollout


def start_or_join(request: RolloutRequest, start: Callable[[RolloutRequest], str] = start_rollout) -> str:
    """Return the uid of the rollout that `start` starts, or of the one in progress that does what the request asks for.

    Raises: what `start` raises; `RolloutInProgressError` if the one in progress does something else.
    """
    try:
        return start(request)
    except RolloutInProgressError as error:
        if not _does_the_same(error.rollout, request):
            raise
        return error.rollout


def _does_the_same(uid: str, request: RolloutRequest) -> bool:
    """Compare named nodes with their operations, and the whole fleet with the rollout and its origin."""
    asked = (request.module_name, request.version, request.action, request.activation)
    if request.nodes is not None:
        rows = [operation_row(uid, node) for node in request.nodes]
        return all((row.module_name, row.version, row.action, row.activation) == asked for row in rows)
    row = rollout_row(uid)
    is_same = (row.module_name, row.version, row.action, row.activation) == asked
    is_same = is_same and row.even_if_used == request.even_if_used
    return is_same and row.origin == request.origin and not row.named
