"""Rollouts, and their operations on each node."""

from typing import Any

from rest_framework import serializers

from rollout.api.serializers.strategy import ACTIVATIONS, StrategySerializer, choices
from rollout.domain.rollout.events import RolloutPhase, WavePhase
from rollout.messages import Action, Activation, Phase, Way, WayBackResult

ACTIONS = choices(Action)
PHASES = choices(Phase)
REQUESTED_BY = "The user who requested the rollout, the retry or the rollback"
AUTOMATIC = "True if the strategy retried or undid it, and no user"
CANCELED_BY = "The user who canceled it, or whose newer rollout replaced it; otherwise null"
ATTEMPT = "0 if it was never released; a retry that was not released has the number of the attempt before it"


class ProgressSerializer(serializers.Serializer[Any]):
    total = serializers.IntegerField()
    scheduled = serializers.IntegerField()
    queued = serializers.IntegerField()
    running = serializers.IntegerField(help_text="All phases from fetching to canceling")
    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()
    timed_out = serializers.IntegerField()
    canceled = serializers.IntegerField()
    skipped = serializers.IntegerField()
    rolled_back = serializers.IntegerField()
    failed_before = serializers.IntegerField(
        help_text="Nodes that are not failed now, but an earlier attempt failed and was retried or undone"
    )
    percent = serializers.IntegerField(help_text="100 * finished / total, rounded down")
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
        required=False,
        help_text="Nodes that are not failed now, but an earlier attempt failed and was retried or undone",
    )
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True, help_text="When its last node finished")
    soak_until = serializers.DateTimeField(required=False, help_text="Present once the wave soaks")


class NodeSecondsSerializer(serializers.Serializer[Any]):
    node = serializers.CharField()
    seconds = serializers.FloatField()


class StopSerializer(serializers.Serializer[Any]):
    action = serializers.ChoiceField(["pause", "abort", "rollback", "reject", "end"])
    by = serializers.CharField(allow_null=True, help_text="The user who stopped it; null if a rule did")
    rule = serializers.CharField(help_text="A rule of docs/reference/why.md; `manual` if a user stopped it")
    reason = serializers.CharField()
    message = serializers.CharField()
    at = serializers.DateTimeField()
    text = serializers.CharField(help_text="The same as a sentence")


class RolloutActionSerializer(serializers.Serializer[Any]):
    action = serializers.ChoiceField(["approve", "resume", "promote", "retry", "cancel", "supersede"])
    actor = serializers.CharField(allow_null=True, help_text="Null if it follows from an earlier action")
    at = serializers.DateTimeField()
    remark = serializers.CharField(allow_blank=True, help_text="The user's comment; for `supersede`, the newer rollout")
    nodes = serializers.ListField(child=serializers.CharField(), help_text="The first 5 nodes")
    count = serializers.IntegerField(help_text="Number of all its nodes")
    text = serializers.CharField(help_text="The same as a sentence")


class LeftForSerializer(serializers.Serializer[Any]):
    rollout = serializers.CharField(help_text="The newer rollout that has changed these nodes, or is about to")
    count = serializers.IntegerField()
    nodes = serializers.ListField(child=serializers.CharField(), help_text="The first 10 nodes; the report has all")


class LeftAloneSerializer(serializers.Serializer[Any]):
    count = serializers.IntegerField()
    by = LeftForSerializer(many=True, help_text="The first 10 rollouts; the report has all")
    text = serializers.CharField(allow_blank=True, help_text="The same as a sentence")


class WayBackSerializer(serializers.Serializer[Any]):
    result = serializers.ChoiceField(choices(WayBackResult))
    message = serializers.CharField(allow_blank=True, help_text="Why it is not open; empty if it is")
    former_version = serializers.IntegerField()
    tried = serializers.IntegerField(help_text="How many keys a scratch server with the former version has read")
    kept_file = serializers.CharField(
        allow_blank=True,
        help_text="Where the node keeps the data from before the change until the rollout ends; empty if it does not",
    )


class OneWaySerializer(WayBackSerializer):
    node = serializers.CharField(help_text="The node that has shown it")
    promoted = serializers.BooleanField(help_text="A person has accepted that there is no rollback")


ONE_WAY = (
    "The former version cannot read what the new one writes, or that is not known: the rollout waits for a person to promote it, "
    "and is not rolled back. Null as long as no node has shown that"
)


class RolloutSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    title = serializers.CharField(help_text="The action as a sentence")
    action = serializers.ChoiceField(ACTIONS)
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    activation = serializers.ChoiceField(ACTIVATIONS)
    may_interrupt = serializers.BooleanField(help_text="Servers may be restarted although no other one takes over")
    one_way = OneWaySerializer(allow_null=True, help_text=ONE_WAY)
    may_discard_data = serializers.BooleanField(
        help_text="Servers may be restarted although their data is neither on disk nor on a replica"
    )
    failback = serializers.BooleanField(
        help_text="After a success, a rollout of its own makes each master that gave its role away the master again"
    )
    even_if_used = serializers.BooleanField(help_text="It removes the module even if its commands were called lately")
    adopt = serializers.BooleanField(help_text="It takes over modules that the servers have loaded already")
    phase = serializers.ChoiceField(choices(RolloutPhase))
    reason = serializers.CharField(allow_null=True)
    message = serializers.CharField()
    origin = serializers.CharField()
    actor = serializers.CharField()
    needs = serializers.ListField(child=serializers.CharField(), help_text="Rollouts that must succeed first")
    retry_of = serializers.CharField(allow_null=True, help_text="The rollout whose failed nodes it retries")
    rollback_of = serializers.CharField(allow_null=True, help_text="The rollout that it rolls back")
    failback_of = serializers.CharField(
        allow_null=True, help_text="The rollout whose former masters it makes the masters again"
    )
    retried_by = serializers.ListField(
        child=serializers.CharField(),
        help_text="Rollouts that retry its failed nodes, the newest 10",
    )
    rolled_back_by = serializers.CharField(
        allow_null=True, help_text="The rollout that rolls it back, whatever the outcome"
    )
    failed_back_by = serializers.CharField(
        allow_null=True, help_text="The rollout that makes its former masters the masters again, whatever the outcome"
    )
    left_alone = LeftAloneSerializer(help_text="Nodes that its rollback left unchanged")
    strategy = StrategySerializer()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True)
    stops = StopSerializer(many=True, help_text="Why it stopped: the newest 10 stops, oldest first; the report has all")
    actions = RolloutActionSerializer(
        many=True,
        help_text="Other actions of users, and newer rollouts that replaced it on nodes: the newest 10, oldest first",
    )
    progress = ProgressSerializer()
    waves = WaveSerializer(many=True)
    slowest_nodes = NodeSecondsSerializer(many=True)


class HadSerializer(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    activation = serializers.ChoiceField(choices(Activation))
    content_sha256 = serializers.CharField()


class ServerStatisticsSerializer(serializers.Serializer[Any]):
    calls = serializers.IntegerField(
        allow_null=True, help_text="Calls of the module's commands since it was loaded, with rejected ones"
    )
    failed_calls = serializers.IntegerField(allow_null=True, help_text="Calls that failed or were rejected")
    p99_usec = serializers.FloatField(
        allow_null=True, help_text="The highest p99 latency of the module's commands, in microseconds"
    )
    used_memory = serializers.IntegerField(allow_null=True, help_text="Bytes")
    evicted_keys = serializers.IntegerField(allow_null=True, help_text="Since the start of the server")
    rejected_connections = serializers.IntegerField(allow_null=True, help_text="Since the start of the server")


class ServerHealthSerializer(serializers.Serializer[Any]):
    before = ServerStatisticsSerializer()
    after = ServerStatisticsSerializer(
        allow_null=True, help_text="After the server has settled; null if it did not settle"
    )
    restarts = serializers.IntegerField(help_text="How often the server was restarted while it settled")
    run_id = serializers.CharField(allow_blank=True)
    unexpected_error_replies = serializers.IntegerField(
        allow_null=True, help_text="Commands of its master that a replica answered with an error, since its start"
    )


class FailoverSerializer(serializers.Serializer[Any]):
    way = serializers.CharField(help_text="`sentinel`, `command` or `cluster`")
    former = serializers.CharField(help_text="The master before, `host:port`")
    new = serializers.CharField(help_text="The master since, `host:port`")
    pause_seconds = serializers.FloatField(help_text="For how long no write was answered")


class RestartSerializer(serializers.Serializer[Any]):
    downtime_seconds = serializers.FloatField(
        allow_null=True,
        help_text="From the end of the old process to the end of loading; null if it is not known, for example because a "
        "person has restarted the server",
    )
    failover = FailoverSerializer(
        allow_null=True, help_text="Before the restart, or in a failback; null if none was needed"
    )


WAY_BACK = (
    "Whether the former version can read what the new one writes; null if no version with data types has taken the place of "
    "another one"
)
HEALTH = "The server just before the load, and after it has settled; null if the operation loaded nothing"


class OutcomeSerializer(serializers.Serializer[Any]):
    attempt = serializers.IntegerField(help_text=ATTEMPT)
    rollback = serializers.BooleanField(help_text="True for an undo, which restores what the node had")
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
    health = ServerHealthSerializer(allow_null=True, help_text=HEALTH)
    restart = RestartSerializer(
        allow_null=True, help_text="The restart of the server, or its failover alone; null if there was none"
    )
    way_back = WayBackSerializer(allow_null=True, help_text=WAY_BACK)
    late = serializers.ChoiceField(PHASES, allow_null=True, help_text="The phase that the node reported after the end")
    text = serializers.CharField(help_text="The same as a sentence")


class AttemptSerializer(serializers.Serializer[Any]):
    scheduled_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    action = serializers.ChoiceField(ACTIONS)
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    activation = serializers.ChoiceField(choices(Activation))
    content_sha256 = serializers.CharField(allow_null=True)
    rollback = serializers.BooleanField(help_text="True for an undo, which restores what the node had")
    attempt = serializers.IntegerField(help_text=ATTEMPT)
    phase = serializers.ChoiceField(PHASES)
    reason = serializers.CharField(allow_null=True)
    message = serializers.CharField()
    seconds = serializers.FloatField(allow_null=True)
    rollout = serializers.CharField(help_text="The uid of the rollout")
    requested_by = serializers.CharField(help_text=REQUESTED_BY)
    automatic = serializers.BooleanField(help_text=AUTOMATIC)
    canceled_by = serializers.CharField(allow_null=True, help_text=CANCELED_BY)


class OperationSerializer(serializers.Serializer[Any]):
    node = serializers.CharField()
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    action = serializers.ChoiceField(ACTIONS)
    activation = serializers.ChoiceField(choices(Activation))
    way = serializers.ChoiceField(choices(Way), help_text="How the server comes to load or unload the version")
    fails_back_to = serializers.CharField(
        allow_null=True,
        help_text="The node that becomes the master again; then nothing is loaded, unloaded or restarted",
    )
    phase = serializers.ChoiceField(PHASES)
    reason = serializers.CharField(allow_null=True)
    message = serializers.CharField()
    generation = serializers.IntegerField()
    attempt = serializers.IntegerField(help_text=ATTEMPT)
    wave = serializers.IntegerField(allow_null=True)
    rollback = serializers.BooleanField(help_text="True for an undo, which restores what the node had")
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
        allow_null=True, help_text="How long the server answered no client while it replaced the loaded version"
    )
    health = ServerHealthSerializer(allow_null=True, help_text=HEALTH)
    restart = RestartSerializer(
        allow_null=True, help_text="The restart of the server, or its failover alone; null if there was none"
    )
    way_back = WayBackSerializer(allow_null=True, help_text=WAY_BACK)
    outcomes = OutcomeSerializer(many=True, help_text="How each attempt ended, oldest first; never overwritten")
