"""What the relay says of itself, to whoever wants to know."""

from django.dispatch import Signal

#: All that was due is done. `position`: the end of the log as it was looked at. A receiver that raises is the relay's
#: trouble: it tries again.
relay_looked = Signal()
