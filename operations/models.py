"""How operations have ended, and when the relay was last at work."""

from typing import ClassVar

from django.db import models


class Outcome(models.Model):
    """How many operations have ended so, each attempt counted. Written by `projections.OutcomeProjection` alone: a
    fleet's operations are too many to be counted at each scrape."""

    #: `<phase>:<reason>`
    key = models.CharField(primary_key=True, max_length=64)
    phase = models.CharField(max_length=12)
    reason = models.CharField(max_length=40)
    count = models.BigIntegerField()
    #: Sum of what nodes said that they took, seconds, and how many said so.
    seconds = models.FloatField()
    measured = models.BigIntegerField()

    class Meta:
        ordering: ClassVar = ["key"]

    def __str__(self) -> str:
        return f"{self.count} {self.key}"


# --- Not a projection: a rebuild leaves it alone. ---------------------------------------------------------------------


class Heartbeat(models.Model):
    """When a relay last had done all that was due, by the database's clock; of however many relays there are."""

    name = models.CharField(primary_key=True, max_length=32)
    looked_at = models.DateTimeField()
    #: End of the log as it was looked at.
    position = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.name} at {self.position}"
