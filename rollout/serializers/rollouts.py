"""Rollouts, and what they do to each node."""

from typing import Any

from rest_framework import serializers

from rollout.events import RolloutPhase, WavePhase
from rollout.messages import Action, Activation, Phase
from rollout.serializers.strategy import StrategySerializer, choices


class ProgressSerializer(serializers.Serializer[Any]):
    total = serializers.IntegerField()
    scheduled = serializers.IntegerField()
    queued = serializers.IntegerField()
    running = serializers.IntegerField(help_text="Everything from fetching to canceling")
    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()
    timed_out = serializers.IntegerField()
    canceled = serializers.IntegerField()
    skipped = serializers.IntegerField()
    rolled_back = serializers.IntegerField()
    percent = serializers.IntegerField(help_text="Floor of 100 * final / total")
    eta_seconds = serializers.FloatField(allow_null=True)


class WaveSerializer(serializers.Serializer[Any]):
    wave = serializers.IntegerField()
    phase = serializers.ChoiceField(choices(WavePhase))
    total = serializers.IntegerField()
    scheduled = serializers.IntegerField()
    queued = serializers.IntegerField()
    running = serializers.IntegerField()
    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()
    timed_out = serializers.IntegerField()
    canceled = serializers.IntegerField()
    skipped = serializers.IntegerField()
    rolled_back = serializers.IntegerField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    soak_until = serializers.DateTimeField(required=False, help_text="There once it soaks")


class NodeSecondsSerializer(serializers.Serializer[Any]):
    node = serializers.CharField()
    seconds = serializers.FloatField()


class RolloutSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    action = serializers.ChoiceField(choices(Action))
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    activation = serializers.ChoiceField(choices(Activation))
    phase = serializers.ChoiceField(choices(RolloutPhase))
    reason = serializers.CharField(allow_null=True)
    message = serializers.CharField()
    origin = serializers.CharField()
    actor = serializers.CharField()
    needs = serializers.ListField(child=serializers.CharField(), help_text="Rollouts that have to succeed first")
    retry_of = serializers.CharField(allow_null=True)
    rollback_of = serializers.CharField(allow_null=True)
    strategy = StrategySerializer()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True)
    progress = ProgressSerializer()
    waves = WaveSerializer(many=True)
    slowest_nodes = NodeSecondsSerializer(many=True)


class OperationSerializer(serializers.Serializer[Any]):
    node = serializers.CharField()
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    action = serializers.ChoiceField(choices(Action))
    activation = serializers.ChoiceField(choices(Activation))
    phase = serializers.ChoiceField(choices(Phase))
    reason = serializers.CharField(allow_null=True)
    message = serializers.CharField()
    generation = serializers.IntegerField()
    attempt = serializers.IntegerField()
    wave = serializers.IntegerField(allow_null=True)
    rollback = serializers.BooleanField(help_text="It gives back what was there before")
    content_sha256 = serializers.CharField(allow_null=True)
    scheduled_at = serializers.DateTimeField()
    released_at = serializers.DateTimeField(allow_null=True)
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True)
    swap_seconds = serializers.FloatField(
        allow_null=True, help_text="How long its server answered no client while it replaced another version"
    )
