"""The table of the log. Only `store.append` adds rows. Rows never change: triggers refuse it."""

from typing import ClassVar

from django.db import models


class StoredEvent(models.Model):
    """An event. Its columns are described at `envelope.RecordedEvent`."""

    position = models.BigIntegerField(primary_key=True)
    stream = models.CharField(max_length=300)
    version = models.IntegerField()
    type = models.CharField(max_length=100)
    #: Canonical JSON as text, because the hash covers each byte. jsonb would reorder keys and rewrite numbers.
    data = models.TextField()
    #: Canonical JSON as text, for the same reason.
    metadata = models.TextField()
    event_id = models.UUIDField(unique=True)
    recorded_at = models.DateTimeField()
    hash = models.CharField(max_length=64)
    #: Which columns the hash covers, and how: see `envelope.chained_hash`. None is the first format.
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
    """The version of a projection that has built its rows. Not a projection itself: a rebuild writes it."""

    name = models.CharField(primary_key=True, max_length=100)
    version = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.name} {self.version}"
