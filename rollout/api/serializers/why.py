"""Why a rollout is in its phase, and what it waits for."""

from typing import Any

from rest_framework import serializers

from rollout.api.serializers.events import EventSerializer


class RuleSerializer(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="Stable: a rule of docs/reference/why.md")
    text = serializers.CharField(help_text="The rule as a sentence, with its numbers")


class WaitSerializer(serializers.Serializer[Any]):
    what = serializers.CharField(help_text="The id of the rule")
    text = serializers.CharField()
    until = serializers.DateTimeField(allow_null=True)


class WhySerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    node = serializers.CharField(required=False, help_text="Present in an answer about one node")
    phase = serializers.CharField()
    reason = serializers.CharField(allow_null=True)
    summary = serializers.CharField()
    rule = RuleSerializer()
    waits_for = WaitSerializer(many=True)
    events = EventSerializer(many=True)
