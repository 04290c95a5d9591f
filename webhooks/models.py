"""Webhooks, and how far each was served. Written by `webhooks.services` and `webhooks.deliver`, never rebuilt."""

from typing import ClassVar
from urllib.parse import urlsplit

from django.db import models


class Webhook(models.Model):
    """Sends events of the log to `url`, in order. All of its events up to `position` were acknowledged."""

    uid = models.CharField(primary_key=True, max_length=32)
    #: May contain a credential in its path or query: only admins may see it.
    url = models.CharField(max_length=2000)
    #: Names of event types, or prefixes that end in a dot. Empty for all.
    types = models.JSONField()
    #: `whsec_` and base64. Not hashed, because each delivery is signed with it.
    secret = models.CharField(max_length=100)
    enabled = models.BooleanField()
    #: Why the webhook was disabled after failures, or empty.
    disabled_reason = models.TextField(blank=True, default="")
    registered_position = models.BigIntegerField(unique=True)
    created_at = models.DateTimeField()

    position = models.BigIntegerField()
    #: Attempts in a row without a 2xx answer, and when the first of them ended.
    failures = models.PositiveIntegerField(default=0)
    failing_since = models.DateTimeField(null=True)
    last_error = models.TextField(blank=True, default="")
    last_delivered_at = models.DateTimeField(null=True)
    #: The time of the next attempt. None while no attempt fails.
    next_attempt_at = models.DateTimeField(null=True)
    #: The lease of the control worker that serves the webhook now, if any.
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
