"""The outcomes of operations, and the heartbeat of the relay."""

from typing import ClassVar

from django.db import models


class Outcome(models.Model):
    """How many operations ended in this way; each attempt counts. Written only by `projections.OutcomeProjection`: a fleet
    has too many operations to count them at each scrape."""

    #: `<phase>:<reason>`
    key = models.CharField(primary_key=True, max_length=64)
    phase = models.CharField(max_length=12)
    reason = models.CharField(max_length=40)
    count = models.BigIntegerField()
    #: The seconds that they took on their nodes, summed, and how many operations this sum has.
    seconds = models.FloatField()
    measured = models.BigIntegerField()

    class Meta:
        ordering: ClassVar = ["key"]

    def __str__(self) -> str:
        return f"{self.count} {self.key}"


# --- Not a projection: a rebuild does not change it. ------------------------------------------------------------------


class Heartbeat(models.Model):
    """When any relay last had nothing left to do, by the database's clock."""

    name = models.CharField(primary_key=True, max_length=32)
    looked_at = models.DateTimeField()
    #: End of the log when the relay read it.
    position = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.name} at {self.position}"
