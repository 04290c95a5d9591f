"""Modules, actions and nodes in the vendor's format."""

from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from modules_app.serializers import ModuleObjectSerializer


class VendorModuleSerializer(ModuleObjectSerializer):
    platforms = serializers.DictField(child=serializers.DictField(), help_text="By platform")


class StartedSerializer(serializers.Serializer[Any]):
    action_uid = serializers.CharField(help_text="Poll it at /v1/actions")


class StartedUploadSerializer(ModuleObjectSerializer, StartedSerializer):
    pass


class ActionSerializer(serializers.Serializer[Any]):
    action_uid = serializers.CharField()
    name = serializers.CharField()
    status = serializers.ChoiceField(["queued", "running", "cancelling", "cancelled", "completed", "failed"])
    progress = serializers.CharField(help_text="Percent, as a string")
    node_uid = serializers.CharField()
    task_id = serializers.CharField()
    object_name = serializers.CharField()
    creation_time = serializers.DateTimeField()
    error_code = serializers.CharField(required=False, help_text="Present if the action failed")
    error_message = serializers.CharField(
        required=False,
        help_text="The nodes on which the action did not succeed, and why. Present if the action failed, or ended with such "
        "nodes",
    )


@extend_schema_serializer(many=False)
class ActionsSerializer(serializers.Serializer[Any]):
    actions = ActionSerializer(many=True)

    def get_fields(self) -> dict[str, Any]:
        # A name that Python's syntax does not allow for an attribute.
        return {**super().get_fields(), "state-machines": serializers.ListField(child=serializers.DictField())}


class VendorNodeSerializer(serializers.Serializer[Any]):
    uid = serializers.IntegerField()
    name = serializers.CharField()
    addr = serializers.CharField(allow_blank=True)
    status = serializers.ChoiceField(["active", "down"])
    architecture = serializers.CharField()
    os_version = serializers.CharField(
        allow_blank=True, help_text="For example `rhel9`; empty if the node does not report it"
    )
    software_version = serializers.CharField()
