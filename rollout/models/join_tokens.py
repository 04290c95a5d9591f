"""Join tokens. Their secrets are not here: the log has a hash of each."""

from django.db import models


class JoinToken(models.Model):
    """A join token, for one `node` or for a `pattern` of names; the other one is empty."""

    id = models.CharField(primary_key=True, max_length=32)
    node = models.CharField(max_length=128, db_index=True)
    pattern = models.CharField(max_length=128)
    uses = models.IntegerField()
    used = models.IntegerField(default=0)
    labels = models.JSONField()
    expires_at = models.DateTimeField()
    auto_accept = models.BooleanField()
    observe = models.BooleanField()
    revoked_at = models.DateTimeField(null=True)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField()
    created_position = models.BigIntegerField(unique=True)

    def __str__(self) -> str:
        return self.node or self.pattern
