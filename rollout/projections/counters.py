"""The counters of a rollout: how many of its nodes are in which phase."""

import msgspec

from rollout.domain.rollout.decider import RolloutState
from rollout.messages import RUNNING_PHASES
from rollout.models import Operation, Rollout

#: Phases with a counter of their own; those in which the node works share `running`.
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
    """The key of an attempt that another one of the same rollout follows."""
    return f"{operation.rollout}:{operation.node}:{operation.generation}:{operation.attempt}"


def counter_of(phase: str) -> str:
    """The counter that an operation in this phase is counted in."""
    return "running" if phase in RUNNING_PHASES else str(phase)


def state_of(rollout: Rollout) -> RolloutState:
    """The rollout as its decider knows it."""
    return msgspec.json.decode(rollout.state, type=RolloutState)
