"""The rules of one rollout: which events each command leads to. Only `Advance` moves a rollout on."""

from eventstore import Decider
from rollout.domain.errors import NothingToRollBackError, RolloutNotFoundError
from rollout.domain.rollout.advance import advance
from rollout.domain.rollout.commands import Advance, RolloutCommand, Start
from rollout.domain.rollout.events import RolloutEvent, RolloutStarted
from rollout.domain.rollout.operator_commands import decide_for_operator
from rollout.domain.rollout.rollback import left_unchanged_sentence
from rollout.domain.rollout.state import RolloutState, evolve


def decide(state: RolloutState, command: RolloutCommand) -> list[RolloutEvent]:
    match command:
        case Start(started=started):
            return [] if state.started else _start(started)
        case _ if state.started is None:
            raise RolloutNotFoundError
        case Advance(snapshot=snapshot):
            return [] if state.phase.is_final else advance(state, snapshot)
        case _:
            return decide_for_operator(state, state.started, command)


def _start(started: RolloutStarted) -> list[RolloutEvent]:
    if started.rollback_of and not started.total:
        words = left_unchanged_sentence(started.left_alone)
        raise NothingToRollBackError(f"Nothing is left to roll back. {words}") if words else NothingToRollBackError
    return [started]


ROLLOUT = Decider(RolloutState(), decide, evolve)
