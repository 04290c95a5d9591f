"""Nodes and their modules."""

from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

from api.fields import StrictCharField, StrictSerializer
from rollout.domain.node.state import Identity
from rollout.projections.node_modules import ModuleState


class LabelsField(serializers.DictField):
    child = StrictCharField(max_length=256, allow_blank=True)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        labels: dict[str, str] = super().to_internal_value(data)
        if len(labels) > 64 or any(not 1 <= len(name) <= 128 for name in labels):
            raise serializers.ValidationError("At most 64 labels, with names of 1 to 128 characters.")
        return labels


class LabelsSerializer(StrictSerializer):
    labels = LabelsField()


class AcceptSerializer(StrictSerializer):
    key = StrictCharField(
        required=False,
        validators=[RegexValidator(r"\A[0-9a-f]{16}\Z")],
        help_text="The id of the key that the node must have, as the installer printed it. Default: any",
    )


class NodeModuleSerializer(serializers.Serializer[Any]):
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    desired = serializers.ChoiceField(["load", "files", "absent"])
    desired_sha256 = serializers.CharField(allow_null=True)
    observed = serializers.ChoiceField(["load", "files", "absent"])
    state = serializers.ChoiceField(list(ModuleState))
    drifted_at = serializers.DateTimeField(
        allow_null=True, help_text="When it began to differ from what the last operation left"
    )
    content_sha256 = serializers.CharField(allow_null=True)
    loaded = serializers.BooleanField()


class NodeWarningSerializer(serializers.Serializer[Any]):
    code = serializers.ChoiceField(
        [
            "changes_too_often",
            "clock_skew",
            "duplicate_agent",
            "implausible_counter",
            "implausible_generations",
            "pending",
            "revoked",
            "unsigned",
        ]
    )
    message = serializers.CharField()


class NodeSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    phase = serializers.ChoiceField(["pending", "online", "offline", "draining", "decommissioned"])
    identity = serializers.ChoiceField(list(Identity), help_text="How its messages are known to be from it")
    keys = serializers.ListField(
        child=serializers.CharField(),
        help_text="Ids of its keys, the one in use first. Compare it with the one that the installer printed before you accept the node",
    )
    duplicate = serializers.BooleanField(help_text="Two agents with its key are heard")
    last_seen = serializers.DateTimeField(allow_null=True)
    clock_skew_seconds = serializers.FloatField(
        allow_null=True, help_text="Seconds by which the node's clock was ahead at its last heartbeat"
    )
    warnings = NodeWarningSerializer(many=True)
    platform = serializers.CharField(help_text="For example `linux/x86_64`")
    operating_system = serializers.CharField(
        allow_blank=True, help_text="For example `rhel9`; empty if the node does not report it"
    )
    server = serializers.CharField()
    server_version = serializers.CharField()
    role = serializers.CharField()
    labels = serializers.DictField(child=serializers.CharField())
    other_modules = serializers.ListField(
        child=serializers.CharField(),
        help_text="Names of the modules that its server has loaded and Modfleet did not install",
    )
    modules = NodeModuleSerializer(many=True)
