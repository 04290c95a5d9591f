"""Rollouts that follow one that has ended: it names them, as they name it."""

from eventstore.store import Append
from eventstore.transact import load_state
from rollout.decider.rollout import ROLLOUT
from rollout.events import RolloutFollowed, rollout_stream


def followed(uid: str, *, by: str, is_rollback: bool = False) -> Append:
    """What the stream of the rollout that has ended gets when `by` is started to follow it."""
    event = RolloutFollowed(rollout=uid, follower=by, is_rollback=is_rollback)
    return load_state(rollout_stream(uid), ROLLOUT).append([event])
