"""What holds for the whole fleet: the freeze, ignored replicas, and the target of each module."""

from django.db import models


class FleetFreeze(models.Model):
    """The newest freeze, also after it was lifted. There is no row if the fleet was never frozen."""

    id = models.IntegerField(primary_key=True, default=1)
    frozen = models.BooleanField()
    reason = models.TextField()
    actor = models.CharField(max_length=150)
    #: Of the newest event.
    position = models.BigIntegerField(default=0, db_default=0)
    event_id = models.UUIDField(null=True)
    frozen_at = models.DateTimeField()
    thawed_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.reason if self.frozen else "not frozen"


class IgnoredReplica(models.Model):
    """A replica that is no node, and that a person has accepted. `address`: `host:port`, or a cluster node id."""

    address = models.CharField(primary_key=True, max_length=264)
    reason = models.TextField()
    actor = models.CharField(max_length=150)
    ignored_at = models.DateTimeField()
    #: Of the event.
    position = models.BigIntegerField(unique=True)

    def __str__(self) -> str:
        return self.address


class ClusterTarget(models.Model):
    """The version of a module that every node shall have, so that nodes that join later get it: that of the last
    rollout of the whole fleet that succeeded. `version` is None if that rollout removed the module."""

    module_name = models.CharField(primary_key=True, max_length=128)
    version = models.BigIntegerField(null=True)
    activation = models.CharField(max_length=10)
    rollout = models.CharField(max_length=32)
    #: Position at which that rollout was started: a later release to a node counts more.
    position = models.BigIntegerField()
    #: The same fields of the target before, for a rollback; None if there was none.
    former = models.JSONField(null=True)

    def __str__(self) -> str:
        return f"{self.module_name} {self.version}"
