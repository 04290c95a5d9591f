"""Subscriptions: a program that handles events after they are committed, and remembers how far it has come.

The checkpoint is a position: all events up to it are handled. The subscriber stores it, in memory or in a row.

    while True:
        end = head()
        subscription = Subscription(after=row.position, event_classes=[OrderPlaced])
        for envelope in subscription.pending(up_to=end):
            send_mail(envelope.event)
        row.position = end
        row.save()
        wait_for_growth(end, timeout=5.0)

- No event is left out, because positions have no gaps and become visible in order.
- An event is handled again after a crash between handling it and storing the checkpoint.
- Ask for the end of the log before reading. Then the checkpoint can move to it, past all events of other classes.
- One process at a time may use a checkpoint. If many could, each has to claim the row first, with a lease.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from eventstore.envelope import RecordedEvent
from eventstore.reading import read


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Some of the events after a checkpoint."""

    #: The checkpoint. 0 is the beginning of the log.
    after: int
    #: None for all classes.
    event_classes: Collection[type] | None = None
    #: Returns False for an event to skip, although its class is among `event_classes`.
    accepts: Callable[[RecordedEvent], bool] = lambda _: True

    def pending(self, *, up_to: int | None = None) -> Iterator[RecordedEvent]:
        """Yield the events after the checkpoint in the order of the log, optionally up to a position.

        They are read 1,000 at a time, as the caller asks for them.
        Raises: `UnknownEventTypeError` at an event of unknown type: an older program must not skip it.
        """
        return filter(self.accepts, read(after=self.after, up_to=up_to, event_classes=self.event_classes))

    def lag(self, end: int) -> int:
        """Return how many positions the checkpoint is behind `end`, the newest position. They may be of any class.

        A negative lag means that the log was restored to a position before the checkpoint: start over.
        """
        return end - self.after
