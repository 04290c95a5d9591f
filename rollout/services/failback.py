"""Makes the former masters of a finished rollout the masters again."""

from eventstore import Condition, append, head, load_state, retry_on_conflict, snapshot
from rollout.domain.conditions import PLANNING
from rollout.domain.errors import NothingToFailBackError, RolloutNotFoundError, WrongPhaseError
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import Origin, rollout_stream
from rollout.process.failback import failback_after
from rollout.services.start import followed


@retry_on_conflict
def fail_back_rollout(uid: str, *, origin: Origin = Origin.API) -> str:
    """Return the rollout that gives former masters their role back: a new one, or the one that does it already.

    Raises: `RolloutNotFoundError`, `WrongPhaseError` before the rollout has ended, `NothingToFailBackError`.
    """
    with snapshot():
        after = head()
        state = load_state(rollout_stream(uid), ROLLOUT).state
        if state.started is None:
            raise RolloutNotFoundError
        if not state.phase.is_final:
            raise WrongPhaseError(f"You cannot fail back after a rollout that is {state.phase}. Wait for its end.")
        follower, appends = failback_after(state.started, origin)
        if not follower:
            raise NothingToFailBackError
        if not appends:
            return follower
        following = followed(uid, by=follower, is_failback=True).with_metadata(appends[0].leads_to)
    append(appends[0], following, *appends[1:], unless=[Condition(after=after, event_types=PLANNING)])
    return follower
