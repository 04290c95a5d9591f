"""Replicas that a person has accepted although they are no nodes."""

from typing import Any

from rest_framework import serializers

from api.fields import StrictCharField, StrictSerializer


class NewIgnoredReplicaSerializer(StrictSerializer):
    address = StrictCharField(
        max_length=264, help_text="`host:port` as the master names it, or a cluster node id: see `unmanaged` of a node"
    )
    reason = StrictCharField(max_length=1000)


class IgnoredReplicaSerializer(serializers.Serializer[Any]):
    address = serializers.CharField()
    reason = serializers.CharField()
    actor = serializers.CharField()
    ignored_at = serializers.DateTimeField()
    masters = serializers.ListField(child=serializers.CharField(), help_text="The nodes that have this replica now")
