"""What a rollout would do."""

from typing import Any

from rest_framework import serializers

from rollout.api.serializers.ignored_replicas import IgnoredReplicaSerializer
from rollout.api.serializers.nodes import PlaceSerializer
from rollout.api.serializers.strategy import ACTIVATIONS, StrategySerializer, choices
from rollout.messages import Action, Reason, Way


class PlannedRestartSerializer(serializers.Serializer[Any]):
    away_seconds = serializers.FloatField(help_text="For how long it is expected to stop the server")
    failover = serializers.CharField(
        allow_blank=True,
        help_text="How a replica becomes the master before: `sentinel`, `command` or `cluster`; empty if that is not needed",
    )
    full_sync_expected = serializers.BooleanField(help_text="Afterwards, it gets all data of its master")


class PlannedNodeSerializer(serializers.Serializer[Any]):
    node = serializers.CharField()
    bytes = serializers.IntegerField(help_text="Bytes to transfer to the node")
    expected = serializers.ChoiceField(
        [Reason.ALREADY_INSTALLED.value, Reason.NOT_INSTALLED.value],
        allow_null=True,
        help_text="Why nothing has to be done, by the node's last inventory; null if it will change",
    )
    shard = serializers.CharField(
        allow_null=True, help_text="Its shard; null if it shares its data with no other server"
    )
    role = serializers.CharField(allow_null=True, help_text="Its role in that shard: `master` or `replica`")
    way = serializers.ChoiceField(choices(Way), help_text="How its server comes to load or unload the version")
    restart = PlannedRestartSerializer(allow_null=True, help_text="Of its server; null if it is not restarted")


class PlannedWaveSerializer(serializers.Serializer[Any]):
    wave = serializers.IntegerField()
    nodes = PlannedNodeSerializer(many=True)
    total = serializers.IntegerField()
    max_parallel = serializers.IntegerField()
    max_failures = serializers.IntegerField()
    bytes = serializers.IntegerField()


class SkippedNodeSerializer(serializers.Serializer[Any]):
    node = serializers.CharField()
    reason = serializers.CharField()
    message = serializers.CharField()


class PlanWarningSerializer(SkippedNodeSerializer):
    """A node, with what speaks against the module there."""


class LearnedSerializer(serializers.Serializer[Any]):
    """What scratch servers have shown about the builds of a plan or a rollout. A fact is null if it is not known."""

    builds = serializers.IntegerField(help_text="How many builds it is about")
    known_builds = serializers.IntegerField(help_text="How many of them a scratch server has loaded")
    has_types = serializers.BooleanField(
        allow_null=True, help_text="It has data types: only a restart of the server upgrades or removes it"
    )
    aux_data = serializers.BooleanField(
        allow_null=True, help_text="It writes auxiliary data: without it, a server does not load its own RDB file"
    )
    commands = serializers.ListField(child=serializers.CharField(), allow_null=True)
    options = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="Names of its settings in CONFIG GET"
    )
    differences = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="What was not as it is for a live server"
    )
    in_words = serializers.ListField(child=serializers.CharField(), help_text="The same as sentences")


class LostOptionsSerializer(serializers.Serializer[Any]):
    node = serializers.CharField()
    options = serializers.ListField(child=serializers.CharField())


class PlannedDependencySerializer(serializers.Serializer[Any]):
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    nodes = serializers.ListField(child=serializers.CharField(), help_text="Nodes that get it by its own rollout")
    joined = serializers.ListField(
        child=serializers.CharField(), help_text="Rollouts in progress that install it on other nodes"
    )
    bytes = serializers.IntegerField()
    predicted_seconds = serializers.FloatField(allow_null=True)


class PlannedShardSerializer(serializers.Serializer[Any]):
    """A shard with a node of the plan."""

    shard = serializers.CharField()
    nodes = PlaceSerializer(many=True, help_text="All its nodes, from the top down")
    ignored_replicas = IgnoredReplicaSerializer(
        many=True, help_text="Its replicas without an agent that a person has accepted, with the reason"
    )


class PlanSerializer(serializers.Serializer[Any]):
    plan_hash = serializers.CharField()
    action = serializers.ChoiceField(choices(Action))
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    activation = serializers.ChoiceField(ACTIVATIONS)
    may_interrupt = serializers.BooleanField(help_text="Servers may be restarted although no other one takes over")
    may_discard_data = serializers.BooleanField(
        help_text="Servers may be restarted although their data is neither on disk nor on a replica"
    )
    failback = serializers.BooleanField(help_text="Afterwards each master that gave its role away gets it back")
    total = serializers.IntegerField(help_text="All nodes, including skipped ones")
    strategy = StrategySerializer()
    waves = PlannedWaveSerializer(many=True)
    skipped = SkippedNodeSerializer(many=True)
    warnings = PlanWarningSerializer(many=True, help_text="Nodes that get the module, but may not be able to use it")
    learned = LearnedSerializer(help_text="What scratch servers have shown about the builds")
    irreversible = serializers.ListField(
        child=serializers.CharField(), help_text="What no rollback undoes, one sentence each"
    )
    lost_options = LostOptionsSerializer(
        many=True, help_text="Nodes whose server has options of the module that the new build does not have"
    )
    shards = PlannedShardSerializer(
        many=True, help_text="The first 100 shards, first those that have replicas without an agent"
    )
    shard_count = serializers.IntegerField(help_text="The number of all shards with a node of the plan")
    min_healthy = serializers.IntegerField()
    max_failures = serializers.IntegerField()
    bytes = serializers.IntegerField(help_text="Bytes to transfer, without dependencies")
    predicted_seconds = serializers.FloatField(
        allow_null=True, help_text="Including dependencies; null if nothing was measured yet"
    )
    dependencies = PlannedDependencySerializer(many=True, help_text="In the order of installation")
