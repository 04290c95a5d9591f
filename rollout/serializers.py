"""What requests about rollouts and nodes hold, and what their answers look like in the API's documents."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from api.fields import StrictBooleanField, StrictCharField, StrictFloatField, StrictIntegerField, StrictSerializer
from rollout.events import RolloutPhase, WavePhase
from rollout.messages import Action, Activation, Phase, Reason
from rollout.requests import RolloutRequest
from rollout.strategy import LONGEST_BACKOFF_SECONDS, Amount, Gate, Offline, OnAbort, OnFailure

MAX_NODES = 10_000


MAX_WAVES = 100
DAY_SECONDS = 86_400


def _choices(words: type[StrEnum]) -> list[str]:
    return [each.value for each in words]


@extend_schema_field({"oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,3}%$"}]})
class AmountField(serializers.Field[Any, Any, Any, Any]):
    """A number of nodes from `least` on, or a share such as `"10%"`, which is not 0 % where `least` is not 0."""

    def __init__(self, *, least: int = 0, **more: Any) -> None:
        super().__init__(**more)
        self.least = least

    def to_internal_value(self, data: Any) -> Amount:
        match data:
            case bool():
                pass
            case int() if self.least <= data <= MAX_NODES:
                return data
            case str() if (share := re.fullmatch("(0|[1-9][0-9]?|100)%", data)) and int(share[1]) >= self.least:
                return data
        raise serializers.ValidationError(
            f'Must be an integer from {self.least} to {MAX_NODES}, or a share from "{self.least}%" to "100%".'
        )

    def to_representation(self, value: Amount) -> Amount:
        return value


@extend_schema_field({"type": "string", "format": "date-time"})
class MomentField(serializers.Field[Any, Any, Any, Any]):
    """RFC 3339, with its zone."""

    def to_internal_value(self, data: Any) -> datetime:
        if isinstance(data, str) and _MOMENT.fullmatch(data):
            with suppress(ValueError, OverflowError):
                return datetime.fromisoformat(data.upper()).astimezone(UTC)
        raise serializers.ValidationError('Must be a time with its zone, such as "2026-11-23T16:20:00Z".')

    def to_representation(self, value: Any) -> Any:
        return value


#: RFC 3339, section 5.6; a leap second is refused.
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})", re.IGNORECASE
)


class RetriesSerializer(StrictSerializer):
    limit = StrictIntegerField(min_value=0, max_value=10, required=False, help_text="Automatic retries of one node")
    backoff_seconds = StrictFloatField(
        min_value=0,
        max_value=LONGEST_BACKOFF_SECONDS,
        required=False,
        help_text="Wait before the first one; it doubles from retry to retry",
    )
    reasons = serializers.ListField(
        child=serializers.ChoiceField(_choices(Reason)),
        max_length=len(Reason),
        required=False,
        help_text="Those worth a retry",
    )


class StrategySerializer(StrictSerializer):
    """Every field may be left out. An amount is a number of nodes, or a share of them such as `"10%"`."""

    canary = AmountField(required=False, help_text="Size of the first wave; 0 for none")
    waves = serializers.ListField(
        child=AmountField(least=1),
        max_length=MAX_WAVES,
        required=False,
        help_text="Sizes of the waves after the canary; what is left is one more",
    )
    max_parallel = AmountField(least=1, required=False, help_text="Nodes that may have it in hand at once")
    min_healthy = AmountField(required=False, help_text="Nodes that stay online, untouched and without a failure")
    max_failures = AmountField(required=False, help_text="Failures that are accepted: more of them stop the rollout")
    on_failure = serializers.ChoiceField(_choices(OnFailure), required=False)
    on_abort = serializers.ChoiceField(_choices(OnAbort), required=False)
    soak_seconds = StrictFloatField(
        min_value=0, max_value=DAY_SECONDS, required=False, help_text="How long health is watched after each wave"
    )
    gate = serializers.ChoiceField(_choices(Gate), required=False)
    node_deadline_seconds = StrictFloatField(
        min_value=1, max_value=DAY_SECONDS, required=False, help_text="Longest for one node"
    )
    progress_deadline_seconds = StrictFloatField(
        min_value=1, max_value=7 * DAY_SECONDS, required=False, help_text="Longest without any success"
    )
    retries = RetriesSerializer(required=False)
    offline = serializers.ChoiceField(
        _choices(Offline), required=False, help_text="What becomes of a node that is offline when it is its turn"
    )
    start_at = MomentField(required=False, allow_null=True, help_text="Not before then")
    approval = StrictBooleanField(required=False, help_text="Not before a second person has approved")


def _words() -> serializers.ListField:
    return serializers.ListField(child=StrictCharField(max_length=128), min_length=1, max_length=100, required=False)


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    }
)
class LabelValuesField(serializers.Field[Any, Any, Any, Any]):
    """The values that are wanted, by label: one, or a list of which any will do."""

    def to_internal_value(self, data: Any) -> dict[str, tuple[str, ...]]:
        if not isinstance(data, dict) or not data:
            raise serializers.ValidationError("Must be an object of labels and their values.")
        wanted = {name: tuple(values) if isinstance(values, list) else (values,) for name, values in data.items()}
        if wrong := [name for name, values in wanted.items() if not values or not _are_texts(values)]:
            raise serializers.ValidationError({name: ["Must be a string, or a list of some."] for name in wrong})
        return wanted

    def to_representation(self, value: Any) -> Any:
        return value


def _are_texts(values: tuple[Any, ...]) -> bool:
    return all(isinstance(each, str) for each in values)


class SelectorSerializer(StrictSerializer):
    """All that is given must match; of the values inside one, any."""

    names = _words()
    labels = LabelValuesField(required=False)
    platforms = _words()
    servers = serializers.ListField(
        child=serializers.ChoiceField(["valkey", "redis"]), min_length=1, max_length=2, required=False
    )
    versions = _words()
    roles = serializers.ListField(
        child=serializers.ChoiceField(["master", "replica"]), min_length=1, max_length=2, required=False
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise serializers.ValidationError(f"Must have some of {', '.join(self.fields)}.")
        return attrs


class StartRolloutSerializer(StrictSerializer):
    action = serializers.ChoiceField(_choices(Action))
    module_name = StrictCharField(validators=[RegexValidator(r"\A[A-Za-z0-9_.-]{1,128}\Z")])
    version = StrictIntegerField(min_value=0, max_value=2**31 - 1)
    activation = serializers.ChoiceField(_choices(Activation), default=Activation.LOAD.value)
    nodes = serializers.ListField(
        child=StrictCharField(max_length=128),
        min_length=1,
        max_length=MAX_NODES,
        required=False,
        help_text="By name; without nodes and selector: all",
    )
    selector = SelectorSerializer(required=False)
    strategy = StrategySerializer(required=False)
    supersede = StrictBooleanField(default=False)
    plan_hash = StrictCharField(
        validators=[RegexValidator(r"\A[0-9a-f]{64}\Z")],
        required=False,
        help_text="Start only if it would do what this plan has shown",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "nodes" in attrs and "selector" in attrs:
            raise serializers.ValidationError({"selector": ["Cannot go together with nodes."]})
        return attrs

    def to_request(self) -> RolloutRequest:
        """The names are those of the fields; what is left out has its default."""
        return msgspec.convert(self.validated_data, RolloutRequest)


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


class PlannedNodeSerializer(serializers.Serializer[Any]):
    node = serializers.CharField()
    bytes = serializers.IntegerField(help_text="To be moved there")
    expected = serializers.ChoiceField(
        [Reason.ALREADY_INSTALLED.value, Reason.NOT_INSTALLED.value],
        allow_null=True,
        help_text="Why nothing will have to be done, by what was last seen there",
    )


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


class PlannedDependencySerializer(serializers.Serializer[Any]):
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    nodes = serializers.ListField(child=serializers.CharField(), help_text="Those that get it by a rollout of its own")
    joined = serializers.ListField(
        child=serializers.CharField(), help_text="Rollouts under way that bring it to other nodes"
    )
    bytes = serializers.IntegerField()
    predicted_seconds = serializers.FloatField(allow_null=True)


class PlanSerializer(serializers.Serializer[Any]):
    plan_hash = serializers.CharField()
    action = serializers.ChoiceField(_choices(Action))
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    activation = serializers.ChoiceField(_choices(Activation))
    total = serializers.IntegerField(help_text="All nodes, with the skipped ones")
    strategy = StrategySerializer()
    waves = PlannedWaveSerializer(many=True)
    skipped = SkippedNodeSerializer(many=True)
    min_healthy = serializers.IntegerField()
    max_failures = serializers.IntegerField()
    bytes = serializers.IntegerField(help_text="Without those of dependencies")
    predicted_seconds = serializers.FloatField(allow_null=True, help_text="With those of dependencies")
    dependencies = PlannedDependencySerializer(many=True, help_text="In the order in which they are installed")


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


class RuleSerializer(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="Stable: one of those in docs/reference/why.md")
    text = serializers.CharField(help_text="The rule in words, with its numbers")


class WaitSerializer(serializers.Serializer[Any]):
    what = serializers.CharField(help_text="The id of the rule by which it waits")
    text = serializers.CharField()
    until = serializers.DateTimeField(allow_null=True)


class WhySerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    node = serializers.CharField(required=False, help_text="There in an answer about one node")
    phase = serializers.CharField()
    reason = serializers.CharField(allow_null=True)
    summary = serializers.CharField()
    rule = RuleSerializer()
    waits_for = WaitSerializer(many=True)
    events = EventSerializer(many=True)
