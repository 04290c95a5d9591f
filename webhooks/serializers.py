"""The request bodies of webhooks, and their answers in the OpenAPI document."""

from typing import Any
from urllib.parse import urlsplit

import httpx
from rest_framework import serializers

from api.fields import StrictBooleanField, StrictCharField, StrictSerializer
from webhooks.selectors import classes_of
from webhooks.services import WebhookChanges
from webhooks.signature import LONGEST_KEY, SHORTEST_KEY, key_of

MAX_URL_LENGTH = 2000
MAX_TYPES = 100


class UrlField(StrictCharField):
    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=MAX_URL_LENGTH, trim_whitespace=False, **options)

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if not text.isascii() or not text.isprintable() or " " in text:
            raise serializers.ValidationError("Must be ASCII without white space. Encode other characters.")
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            raise serializers.ValidationError("Must be a URL.") from error
        if url.scheme not in {"http", "https"} or not url.host:
            raise serializers.ValidationError("Must begin with http:// or https:// and a host.")
        if url.port is not None and not 0 < url.port < 65_536:
            raise serializers.ValidationError("Must name a port from 1 to 65535, or none.")
        if "@" in urlsplit(text).netloc:
            raise serializers.ValidationError("Must not contain a user or a password.")
        return text


class SecretField(StrictCharField):
    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            key_of(text)
        except ValueError as error:
            raise serializers.ValidationError(
                f"Must be whsec_ and {SHORTEST_KEY} to {LONGEST_KEY} random bytes in base64."
            ) from error
        return text


class TypeField(StrictCharField):
    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if not classes_of([text]):
            raise serializers.ValidationError("Must be an event type, or a prefix of event types that ends in a dot.")
        return text


class NewWebhookSerializer(StrictSerializer):
    url = UrlField(help_text="http or https, without user and password")
    types = serializers.ListField(
        child=TypeField(max_length=100),
        max_length=MAX_TYPES,
        default=list,
        help_text="Event types, or prefixes such as `rollout.`. Empty: all",
    )
    enabled = StrictBooleanField(default=True)
    secret = SecretField(max_length=100, required=False, write_only=True, help_text="Default: a generated secret")


class WebhookChangesSerializer(StrictSerializer):
    url = UrlField(required=False)
    types = serializers.ListField(child=TypeField(max_length=100), max_length=MAX_TYPES, required=False)
    enabled = StrictBooleanField(required=False)
    secret = SecretField(max_length=100, required=False, write_only=True)

    def changes(self) -> WebhookChanges:
        given = self.validated_data
        return WebhookChanges(
            url=given.get("url"),
            types=tuple(given["types"]) if "types" in given else None,
            enabled=given.get("enabled"),
            secret=given.get("secret"),
        )


class WebhookSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    url = serializers.CharField()
    types = serializers.ListField(child=serializers.CharField())
    enabled = serializers.BooleanField()
    disabled_reason = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()
    position = serializers.IntegerField(help_text="All of its events up to this position were acknowledged")
    failures = serializers.IntegerField(help_text="Failed attempts in a row")
    last_error = serializers.CharField(allow_null=True)
    last_delivered_at = serializers.DateTimeField(allow_null=True)
    next_attempt_at = serializers.DateTimeField(allow_null=True)


class RegisteredWebhookSerializer(WebhookSerializer):
    secret = serializers.CharField(help_text="Signs deliveries. It is not shown again")
