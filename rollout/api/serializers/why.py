"""Why a rollout is in its phase, and what it waits for."""

from typing import Any

from rest_framework import serializers

from rollout.api.serializers.events import EventSerializer
from rollout.api.serializers.rollouts import FailoverSerializer


class RuleSerializer(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="Stable: a rule of docs/reference/why.md")
    text = serializers.CharField(help_text="The rule as a sentence, with its numbers")


class WaitSerializer(serializers.Serializer[Any]):
    what = serializers.CharField(help_text="The id of the rule")
    text = serializers.CharField()
    until = serializers.DateTimeField(allow_null=True)


class FailureSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(allow_null=True)
    line = serializers.CharField(help_text="The line of the server's log that tells why; empty if there is none")
    count = serializers.IntegerField(help_text="How many nodes failed so")
    node = serializers.CharField(help_text="The first of them: `message` and `server_log` are from it")
    message = serializers.CharField()
    server_log = serializers.ListField(
        child=serializers.CharField(), help_text="What the server logged, redacted; kept for MODFLEET_FAILURE_LOG_DAYS"
    )
    text = serializers.CharField(help_text="All of this in words, such as `7 nodes: load_failed: ...`")


class MovedMasterSerializer(FailoverSerializer):
    node = serializers.CharField(help_text="The node that was the master")
    text = serializers.CharField(help_text="The same as a sentence")


class WhySerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    node = serializers.CharField(required=False, help_text="Present in an answer about one node")
    phase = serializers.CharField()
    reason = serializers.CharField(allow_null=True)
    summary = serializers.CharField()
    rule = RuleSerializer()
    waits_for = WaitSerializer(many=True)
    notes = serializers.ListField(
        child=serializers.CharField(), help_text="What has happened on nodes in progress, such as a server that hangs"
    )
    failures = FailureSerializer(many=True, help_text="The failed attempts, by reason and by `line`: at most 10 groups")
    masters = MovedMasterSerializer(
        many=True,
        required=False,
        help_text="Where the masters were and are that have failed over, the newest 25; not in an answer about one node",
    )
    events = EventSerializer(many=True)
