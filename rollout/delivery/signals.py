"""The signal by which other apps see that the relay works."""

from django.dispatch import Signal

#: Sent when all that was due is done. `position`: the end of the log when the relay read it. If a receiver raises, the
#: relay tries again.
relay_caught_up = Signal()
