"""Webhooks and how far each was served: written by `webhooks.services` and `webhooks.deliver`, never rebuilt."""

from typing import ClassVar
from urllib.parse import urlsplit

from django.db import models


class Webhook(models.Model):
    """Events of the log are sent to `url`, in order: all that are wanted up to `position` were acknowledged."""

    uid = models.CharField(primary_key=True, max_length=32)
    #: May hold a credential in its path or query: shown to admins only.
    url = models.CharField(max_length=2000)
    #: Names of event types, or beginnings of names that end in a dot; empty for all.
    types = models.JSONField()
    #: `whsec_` and base64. As it is, because each delivery is signed with it.
    secret = models.CharField(max_length=100)
    enabled = models.BooleanField()
    #: Why deliveries were given up; empty if they were not.
    disabled_reason = models.TextField(blank=True, default="")
    registered_position = models.BigIntegerField(unique=True)
    created_at = models.DateTimeField()

    position = models.BigIntegerField()
    #: Attempts in a row that brought no 2xx answer, and when the first of them ended.
    failures = models.PositiveIntegerField(default=0)
    failing_since = models.DateTimeField(null=True)
    last_error = models.TextField(blank=True, default="")
    last_delivered_at = models.DateTimeField(null=True)
    #: Not before; none while nothing fails.
    next_attempt_at = models.DateTimeField(null=True)
    #: Of the control worker that delivers now, if any does.
    lease = models.UUIDField(null=True)
    leased_until = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["registered_position"]

    def __str__(self) -> str:
        return f"{self.uid} to {self.host}"

    @property
    def host(self) -> str:
        """With its port, if the URL names one."""
        return urlsplit(self.url).netloc
