"""A decider: the rules of one stream, as pure functions. Needs no Django; `eventstore.transact` runs it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

State = TypeVar("State")
Command = TypeVar("Command")


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity, because a state need not be hashable
class Decider(Generic[State, Command]):
    """The rules of one kind of stream. States must be immutable: they are cached and shared by threads."""

    #: The state of a stream without events.
    initial: State
    #: Returns the new events for a command; none if there is nothing to do. Raises an error to refuse the command.
    decide: Callable[[State, Command], Sequence[object]]
    #: Returns the state after one more event. It must not fail: the event has happened.
    evolve: Callable[[State, Any], State]

    def fold(self, events: Iterable[object], start: State | None = None) -> State:
        """Return the state after `events`. `start` is the state before them, by default the initial one."""
        state = self.initial if start is None else start
        for event in events:
            state = self.evolve(state, event)
        return state
