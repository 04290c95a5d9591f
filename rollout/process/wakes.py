"""Rollouts that may have a next step without an event: the places of nodes, or the readiness of their servers, have changed.

The rows are written in the transaction of the change. So a worker that dies after its commit, and before it advances the
rollouts, loses nothing: each relay compares the stamps with those that it has seen.
"""

from collections.abc import Collection, Mapping
from uuid import UUID, uuid4

from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES
from rollout.models import Rollout, RolloutWake
from rollout.queries.rollouts import unfinished_rollouts_of


def wake_rollouts_of(nodes: Collection[str]) -> None:
    """Note that the unfinished rollouts of these nodes may have a next step. Call this in the transaction of the change.

    The rows are written in the order of their rollouts, so two workers never wait for each other.
    """
    if not nodes or not (uids := unfinished_rollouts_of(*nodes)):
        return
    rows = [RolloutWake(rollout=uid, stamp=uuid4()) for uid in uids]
    RolloutWake.objects.bulk_create(rows, update_conflicts=True, unique_fields=["rollout"], update_fields=["stamp"])


def stamps() -> Mapping[str, UUID]:
    """Return the newest stamp of each rollout that was woken and has not ended. One query."""
    return dict(RolloutWake.objects.values_list("rollout", "stamp"))


def forget_ended_rollouts() -> None:
    """Delete the rows of rollouts that have ended."""
    ended = Rollout.objects.filter(phase__in=FINAL_ROLLOUT_PHASES).values("uid")
    RolloutWake.objects.filter(rollout__in=ended).delete()
