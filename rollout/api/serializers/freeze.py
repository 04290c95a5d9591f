"""The freeze of the fleet."""

from typing import Any

from rest_framework import serializers

from api.fields import StrictCharField, StrictSerializer


class ReasonSerializer(StrictSerializer):
    reason = StrictCharField(max_length=1000)


class FreezeSerializer(serializers.Serializer[Any]):
    frozen = serializers.BooleanField()
    reason = serializers.CharField(allow_null=True)
    actor = serializers.CharField(allow_null=True)
    frozen_at = serializers.DateTimeField(allow_null=True)
    thawed_at = serializers.DateTimeField(allow_null=True)
