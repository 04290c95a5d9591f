"""The counters of a rollout: how many of its nodes are in which phase."""

import decoding
from rollout.domain.rollout.state import RolloutState
from rollout.messages import RUNNING_PHASES
from rollout.models import Operation, Rollout

#: The phases that are counted. All phases in which the node works count as `running`.
COUNTERS = (
    "scheduled",
    "queued",
    "running",
    "succeeded",
    "failed",
    "timed_out",
    "canceled",
    "skipped",
    "rolled_back",
)


def operation_key(rollout: str, node: str) -> str:
    return f"{rollout}:{node}"


def former_key(operation: Operation) -> str:
    """Return the key of an attempt that another attempt of the rollout has followed."""
    return f"{operation.rollout}:{operation.node}:{operation.generation}:{operation.attempt}"


def counter_of(phase: str) -> str:
    """Return the counter for operations in this phase."""
    return "running" if phase in RUNNING_PHASES else str(phase)


def state_of(rollout: Rollout) -> RolloutState:
    """Return the decider's state of the rollout."""
    return decoding.decode(rollout.state, RolloutState)
