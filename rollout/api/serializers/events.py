"""Events, as the API shows them and webhooks get them."""

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
    requested_by = serializers.CharField(help_text="The actor at whose request it happened")
    correlation_id = serializers.CharField(help_text="That request: its `X-Request-ID`")
    causation_id = serializers.CharField(help_text="The `event_id` that led to it; empty where a story begins")
    data = serializers.DictField()  # type: ignore[assignment]  # the field is called so; the class is documentation


class SentEventSerializer(serializers.Serializer[Any]):
    """A server-sent event."""

    id = serializers.CharField(required=False, help_text="The position in the log")
    event = serializers.CharField(required=False, help_text="The event's type, or `log.restored`")
    data = serializers.CharField(required=False, help_text="The event as JSON")  # type: ignore[assignment]
