"""The module object in the OpenAPI document. `metadata` checks it."""

from typing import Any

from rest_framework import serializers


class ModuleObjectSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField(read_only=True, help_text="32 hex digits, made from name and version")
    module_name = serializers.CharField()
    version = serializers.IntegerField(help_text="A whole number; 10203.0 is taken for 10203")
    semantic_version = serializers.CharField()
    display_name = serializers.CharField()
    commands = serializers.ListField(child=serializers.DictField())
    command_line_args = serializers.CharField(allow_blank=True)
    capabilities = serializers.ListField(child=serializers.CharField())
    min_redis_version = serializers.CharField()
