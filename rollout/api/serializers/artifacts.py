"""Artifacts on one node."""

from typing import Any

from rest_framework import serializers


class LocalArtifactSerializer(serializers.Serializer[Any]):
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    dependencies = serializers.ListField(child=serializers.CharField())
