"""Stored answers to requests with an `Idempotency-Key`: written only by `api.idempotency`."""

from typing import ClassVar

from django.db import models


class IdempotencyRecord(models.Model):
    """The answer to a user's POST to a route with a key."""

    user_id = models.BigIntegerField()
    route = models.CharField(max_length=300)
    key = models.CharField(max_length=255)
    #: Keyed SHA-256 of the request, in hex: the same key with another request is an error of the client.
    digest = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField()
    #: JSON as text: jsonb would reorder keys, and the second answer must equal the first one, byte by byte.
    body = models.TextField()
    headers = models.JSONField()
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user_id", "route", "key"], name="one_answer_per_idempotency_key")
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.route} {self.key}"
