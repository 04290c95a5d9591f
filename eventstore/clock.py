"""The clock of the log, after it ran ahead and was set back.

The column `recorded_at` never goes back, so that a time can be found by bisection. `append` goes on with the newest time
for as long as the clock shows an earlier one: harmless for some seconds, but not for hours. So `follow_clock` records a
`ClockSetBack`. From there on, the metadata of an event also has the time that the clock shows.
"""

from eventstore.registry import event

CLOCK_STREAM = "clock"
#: `follow_clock` does nothing if the clock shows a time that is earlier than the newest event by less, seconds.
JUMP_SECONDS = 5.0


@event("clock.set_back.v1")
class ClockSetBack:
    """The database's clock was set back. From here on the times of events follow it again. Rows of projections must not say
    that something happened later than this event. `seconds`: by how much at least."""

    seconds: float
