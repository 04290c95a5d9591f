"""What requests about rollouts and nodes hold, and what their answers look like in the API's documents."""

from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

from api.fields import StrictBooleanField, StrictCharField, StrictFloatField, StrictIntegerField, StrictSerializer
from rollout.events import RolloutPhase, WavePhase
from rollout.messages import Action, Activation, Phase
from rollout.requests import RolloutRequest
from rollout.strategy import Strategy

MAX_NODES = 10_000


class StrategySerializer(StrictSerializer):
    max_parallel = StrictIntegerField(
        min_value=1, max_value=MAX_NODES, required=False, help_text="Nodes that may have it in hand at once"
    )
    node_deadline_seconds = StrictFloatField(
        min_value=1, max_value=86_400, required=False, help_text="Longest for one node"
    )


class StartRolloutSerializer(StrictSerializer):
    action = serializers.ChoiceField([each.value for each in Action])
    module_name = StrictCharField(validators=[RegexValidator(r"\A[A-Za-z0-9_.-]{1,128}\Z")])
    version = StrictIntegerField(min_value=0, max_value=2**31 - 1)
    activation = serializers.ChoiceField([each.value for each in Activation], default=Activation.LOAD.value)
    nodes = serializers.ListField(
        child=StrictCharField(max_length=128),
        min_length=1,
        max_length=MAX_NODES,
        required=False,
        help_text="Left out: all",
    )
    strategy = StrategySerializer(required=False)
    supersede = StrictBooleanField(default=False)

    def to_request(self) -> RolloutRequest:
        given = self.validated_data
        nodes = given.get("nodes")
        return RolloutRequest(
            action=Action(given["action"]),
            module_name=given["module_name"],
            version=given["version"],
            activation=Activation(given["activation"]),
            nodes=None if nodes is None else tuple(nodes),
            strategy=Strategy(**given.get("strategy", {})),
            supersede=given["supersede"],
        )


class PromoteSerializer(StrictSerializer):
    wave = StrictIntegerField(
        min_value=0, required=False, help_text="Whose gate is meant; left out: the one at which it waits"
    )


class RemarkSerializer(StrictSerializer):
    remark = StrictCharField(max_length=1000)


class CancelSerializer(StrictSerializer):
    force = StrictBooleanField(default=False, help_text="End it without waiting for the node's answer")


class ReasonSerializer(StrictSerializer):
    reason = StrictCharField(max_length=1000)


class FreezeSerializer(serializers.Serializer[Any]):
    frozen = serializers.BooleanField()
    reason = serializers.CharField(allow_null=True)
    actor = serializers.CharField(allow_null=True)
    frozen_at = serializers.DateTimeField(allow_null=True)
    thawed_at = serializers.DateTimeField(allow_null=True)


class LabelsSerializer(StrictSerializer):
    labels = serializers.DictField(child=StrictCharField(max_length=256, allow_blank=True))

    def validate_labels(self, labels: dict[str, str]) -> dict[str, str]:
        if len(labels) > 64 or any(not 1 <= len(name) <= 128 for name in labels):
            raise serializers.ValidationError("At most 64 labels, with names of 1 to 128 characters.")
        return labels


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
    phase = serializers.ChoiceField([each.value for each in WavePhase])
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
    action = serializers.ChoiceField([each.value for each in Action])
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    activation = serializers.ChoiceField([each.value for each in Activation])
    phase = serializers.ChoiceField([each.value for each in RolloutPhase])
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
    action = serializers.ChoiceField([each.value for each in Action])
    activation = serializers.ChoiceField([each.value for each in Activation])
    phase = serializers.ChoiceField([each.value for each in Phase])
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


class NodeModuleSerializer(serializers.Serializer[Any]):
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    desired = serializers.ChoiceField(["load", "files", "absent"])
    desired_sha256 = serializers.CharField(allow_null=True)
    observed = serializers.ChoiceField(["load", "files", "absent"])
    state = serializers.ChoiceField(["in_sync", "pending", "drifted", "missing", "error", "unknown"])
    drifted_at = serializers.DateTimeField(
        allow_null=True, help_text="Since when it is not as the last operation left it"
    )
    content_sha256 = serializers.CharField(allow_null=True)
    loaded = serializers.BooleanField()


class NodeSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    phase = serializers.ChoiceField(["online", "offline", "draining", "decommissioned"])
    last_seen = serializers.DateTimeField(allow_null=True)
    platform = serializers.CharField()
    server = serializers.CharField()
    server_version = serializers.CharField()
    role = serializers.CharField()
    labels = serializers.DictField(child=serializers.CharField())
    modules = NodeModuleSerializer(many=True)


class EventSerializer(serializers.Serializer[Any]):
    position = serializers.IntegerField()
    stream = serializers.CharField()
    version = serializers.IntegerField()
    type = serializers.CharField()
    recorded_at = serializers.DateTimeField()
    actor = serializers.CharField()
    request_id = serializers.CharField()
    data = serializers.DictField()  # type: ignore[assignment]  # the field is called so; the class is documentation


class BuildSerializer(serializers.Serializer[Any]):
    platform = serializers.CharField()
    content_sha256 = serializers.CharField()
    package_sha256 = serializers.CharField()
    size = serializers.IntegerField(help_text="Bytes of the package")
    uploaded_at = serializers.DateTimeField()
    uploaded_by = serializers.CharField()


class ArtifactSerializer(serializers.Serializer[Any]):
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    builds = BuildSerializer(many=True)
    dependencies = serializers.ListField(child=serializers.CharField())


class LocalArtifactSerializer(serializers.Serializer[Any]):
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    dependencies = serializers.ListField(child=serializers.CharField())


class PackageSerializer(serializers.Serializer[Any]):
    module = serializers.FileField(help_text="The package: a .zip of one .so and its module.json")
