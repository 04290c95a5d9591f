"""A decider: the rules of one stream, as pure functions. Knows no Django; `eventstore.transact` runs it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

State = TypeVar("State")
Command = TypeVar("Command")


@dataclass(frozen=True, slots=True, eq=False)  # known by identity: a state need not be hashable
class Decider(Generic[State, Command]):
    """`decide` answers the new events, none when nothing is to do; `evolve` never fails. States are immutable."""

    initial: State
    decide: Callable[[State, Command], Sequence[object]]
    evolve: Callable[[State, Any], State]

    def fold(self, events: Iterable[object], start: State | None = None) -> State:
        """The state after `events`, from `start` on."""
        state = self.initial if start is None else start
        for event in events:
            state = self.evolve(state, event)
        return state
