"""The table of the log. Rows are added by `store.append` alone and never change: triggers refuse it."""

from typing import ClassVar

from django.db import models


class StoredEvent(models.Model):
    """One fact. `position` orders all of them without gaps, `version` those of one stream, both from 1."""

    position = models.BigIntegerField(primary_key=True)
    stream = models.CharField(max_length=300)
    version = models.IntegerField()
    type = models.CharField(max_length=100)
    #: Canonical JSON as text: what the hash covers, byte for byte. jsonb would reorder keys and rewrite numbers.
    data = models.TextField()
    #: Canonical JSON as text too.
    metadata = models.TextField()
    event_id = models.UUIDField(unique=True)
    #: The database's clock, so that one clock orders what many processes did.
    recorded_at = models.DateTimeField()
    #: SHA-256 in hex over the hash of the position before and this row.
    hash = models.CharField(max_length=64)
    #: Which columns the hash covers, and how: see `recorded.chained_hash`. None: the first rule.
    format = models.SmallIntegerField(null=True)

    class Meta:
        db_table = "eventstore_event"
        verbose_name = "event"
        ordering: ClassVar = ["position"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["stream", "version"], name="one_event_per_version")]
        indexes: ClassVar = [models.Index(fields=["type", "position"], name="events_by_type")]

    def __str__(self) -> str:
        return f"{self.position} {self.type} {self.stream}@{self.version}"


class ProjectionVersion(models.Model):
    """The version of a projection that its rows were built with. No projection itself: written by a rebuild."""

    name = models.CharField(primary_key=True, max_length=100)
    version = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.name} {self.version}"
