"""Rollouts, and what they do to each node."""

from typing import Any

from rest_framework import serializers

from rollout.api.serializers.strategy import StrategySerializer, choices
from rollout.domain.rollout.events import RolloutPhase, WavePhase
from rollout.messages import Action, Activation, Phase

ACTIONS = choices(Action)
PHASES = choices(Phase)
REQUESTED_BY = "Who asked for the rollout, the retry or the rollback"
AUTOMATIC = "It was retried or undone by the strategy, and not at a person's request"
CANCELED_BY = "The person who canceled it, or whose newer rollout took its place; null for any other end"
ATTEMPT = "0 if the node was never asked; a retry that was not released has the number of the attempt before"


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
    failed_before = serializers.IntegerField(
        help_text="Nodes that have not failed, but an attempt before has; it was retried or undone"
    )
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
    failed_before = serializers.IntegerField(
        required=False, help_text="Nodes that have not failed, but an attempt before has; it was retried or undone"
    )
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True, help_text="When the last of its nodes has ended")
    soak_until = serializers.DateTimeField(required=False, help_text="There once it soaks")


class NodeSecondsSerializer(serializers.Serializer[Any]):
    node = serializers.CharField()
    seconds = serializers.FloatField()


class StopSerializer(serializers.Serializer[Any]):
    action = serializers.ChoiceField(["pause", "abort", "rollback", "reject", "end"])
    by = serializers.CharField(allow_null=True, help_text="The person who stopped it; null where a rule did")
    rule = serializers.CharField(help_text="One of those in docs/reference/why.md: `manual` where a person did")
    reason = serializers.CharField()
    message = serializers.CharField()
    at = serializers.DateTimeField()
    text = serializers.CharField(help_text="All of it in words")


class RolloutActionSerializer(serializers.Serializer[Any]):
    action = serializers.ChoiceField(["approve", "resume", "promote", "retry", "cancel", "supersede"])
    actor = serializers.CharField(allow_null=True, help_text="Null where it followed from what somebody did before")
    at = serializers.DateTimeField()
    remark = serializers.CharField(
        allow_blank=True, help_text="What was said about it; of `supersede` by which rollout"
    )
    nodes = serializers.ListField(child=serializers.CharField(), help_text="The first 5 nodes that it is about")
    count = serializers.IntegerField(help_text="How many nodes these are")
    text = serializers.CharField(help_text="All of it in words")


class LeftForSerializer(serializers.Serializer[Any]):
    rollout = serializers.CharField(help_text="It has changed them since, or is about to")
    count = serializers.IntegerField()
    nodes = serializers.ListField(child=serializers.CharField(), help_text="The first 10; the report has all")


class LeftAloneSerializer(serializers.Serializer[Any]):
    count = serializers.IntegerField()
    by = LeftForSerializer(many=True, help_text="The first 10 rollouts; the report has all")
    text = serializers.CharField(allow_blank=True, help_text="All of it in words")


class RolloutSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    title = serializers.CharField(help_text="What it does, in words")
    action = serializers.ChoiceField(ACTIONS)
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    activation = serializers.ChoiceField(choices(Activation))
    phase = serializers.ChoiceField(choices(RolloutPhase))
    reason = serializers.CharField(allow_null=True)
    message = serializers.CharField()
    origin = serializers.CharField()
    actor = serializers.CharField()
    needs = serializers.ListField(child=serializers.CharField(), help_text="Rollouts that have to succeed first")
    retry_of = serializers.CharField(allow_null=True, help_text="The rollout whose failed nodes it tries again")
    rollback_of = serializers.CharField(allow_null=True, help_text="The rollout that it takes back")
    retried_by = serializers.ListField(
        child=serializers.CharField(),
        help_text="Rollouts that try its failed nodes again, the newest 10",
    )
    rolled_back_by = serializers.CharField(
        allow_null=True, help_text="The rollout that is its rollback, however that ends"
    )
    left_alone = LeftAloneSerializer(help_text="Nodes that its rollback has left as they are")
    strategy = StrategySerializer()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True)
    stops = StopSerializer(many=True, help_text="What stopped it, the newest 10, oldest first; the report has all")
    actions = RolloutActionSerializer(
        many=True,
        help_text="What people did beside that, and which rollouts took over nodes, the newest 10, oldest first",
    )
    progress = ProgressSerializer()
    waves = WaveSerializer(many=True)
    slowest_nodes = NodeSecondsSerializer(many=True)


class HadSerializer(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    activation = serializers.ChoiceField(choices(Activation))
    content_sha256 = serializers.CharField()


class OutcomeSerializer(serializers.Serializer[Any]):
    attempt = serializers.IntegerField(help_text=ATTEMPT)
    rollback = serializers.BooleanField(help_text="An undo: it was to give back what was there before")
    action = serializers.ChoiceField(ACTIONS)
    version = serializers.IntegerField()
    content_sha256 = serializers.CharField(allow_null=True)
    had = HadSerializer(
        allow_null=True,
        help_text="What was loaded when it was released; if nothing was, the newest files that were there",
    )
    phase = serializers.ChoiceField(PHASES)
    reason = serializers.CharField(allow_null=True)
    message = serializers.CharField()
    by = serializers.CharField(allow_null=True, help_text=CANCELED_BY)
    requested_by = serializers.CharField(help_text=REQUESTED_BY)
    automatic = serializers.BooleanField(help_text=AUTOMATIC)
    released_at = serializers.DateTimeField(allow_null=True)
    at = serializers.DateTimeField()
    seconds = serializers.FloatField(allow_null=True)
    swap_seconds = serializers.FloatField(allow_null=True)
    late = serializers.ChoiceField(PHASES, allow_null=True, help_text="What the node has reported after that")
    text = serializers.CharField(help_text="All of it in words")


class AttemptSerializer(serializers.Serializer[Any]):
    scheduled_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    action = serializers.ChoiceField(ACTIONS)
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    activation = serializers.ChoiceField(choices(Activation))
    content_sha256 = serializers.CharField(allow_null=True)
    rollback = serializers.BooleanField(help_text="An undo: it is to give back what was there before")
    attempt = serializers.IntegerField(help_text=ATTEMPT)
    phase = serializers.ChoiceField(PHASES)
    reason = serializers.CharField(allow_null=True)
    message = serializers.CharField()
    seconds = serializers.FloatField(allow_null=True)
    rollout = serializers.CharField(help_text="Its uid")
    requested_by = serializers.CharField(help_text=REQUESTED_BY)
    automatic = serializers.BooleanField(help_text=AUTOMATIC)
    canceled_by = serializers.CharField(allow_null=True, help_text=CANCELED_BY)


class OperationSerializer(serializers.Serializer[Any]):
    node = serializers.CharField()
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    action = serializers.ChoiceField(ACTIONS)
    activation = serializers.ChoiceField(choices(Activation))
    phase = serializers.ChoiceField(PHASES)
    reason = serializers.CharField(allow_null=True)
    message = serializers.CharField()
    generation = serializers.IntegerField()
    attempt = serializers.IntegerField(help_text=ATTEMPT)
    wave = serializers.IntegerField(allow_null=True)
    rollback = serializers.BooleanField(help_text="An undo: it is to give back what was there before")
    requested_by = serializers.CharField(help_text=REQUESTED_BY)
    automatic = serializers.BooleanField(help_text=AUTOMATIC)
    canceled_by = serializers.CharField(allow_null=True, help_text=CANCELED_BY)
    content_sha256 = serializers.CharField(allow_null=True)
    scheduled_at = serializers.DateTimeField()
    released_at = serializers.DateTimeField(allow_null=True)
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True)
    swap_seconds = serializers.FloatField(
        allow_null=True, help_text="How long its server answered no client while it replaced another version"
    )
    outcomes = OutcomeSerializer(many=True, help_text="How each attempt has ended, in order; nothing overwrites them")
