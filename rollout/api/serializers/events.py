"""Events, as the API returns them and webhooks send them."""

from typing import Any

from rest_framework import serializers


class EventSerializer(serializers.Serializer[Any]):
    position = serializers.IntegerField()
    stream = serializers.CharField()
    version = serializers.IntegerField()
    type = serializers.CharField()
    recorded_at = serializers.DateTimeField()
    event_id = serializers.CharField()
    actor = serializers.CharField(help_text="A login name, or `node:<name>`, `system:<part>`, `unknown:<name>`")
    requested_by = serializers.CharField(help_text="The actor who requested it")
    correlation_id = serializers.CharField(help_text="The `X-Request-ID` of that request")
    causation_id = serializers.CharField(help_text="The `event_id` of the event that caused it; empty if no event did")
    data = serializers.DictField()  # type: ignore[assignment]  # the field is called so; the class is documentation


class HeadSerializer(serializers.Serializer[Any]):
    position = serializers.IntegerField()
    hash = serializers.CharField(help_text="SHA-256; `modfleet-manage verify_log --head POSITION:HASH` checks it")


class SentEventSerializer(serializers.Serializer[Any]):
    """A server-sent event."""

    id = serializers.CharField(required=False, help_text="The position in the log")
    event = serializers.CharField(required=False, help_text="The event's type, or `log.restored`")
    data = serializers.CharField(required=False, help_text="The event as JSON")  # type: ignore[assignment]
