"""Replicas that a person has accepted although they are no nodes."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from api.fields import StrictCharField, StrictSerializer
from rollout.domain.topology.addresses import PATTERN


@extend_schema_field({"type": "string", "pattern": f"^({PATTERN}|[0-9a-f]{{40}})$", "maxLength": 264})
class _Replica(StrictCharField):
    """An address, or the id of a node in a cluster."""


class NewIgnoredReplicaSerializer(StrictSerializer):
    address = _Replica(
        max_length=264, help_text="`host:port` as the master names it, or a cluster node id: see `unmanaged` of a node"
    )
    reason = StrictCharField(max_length=1000)


class IgnoredReplicaSerializer(serializers.Serializer[Any]):
    address = serializers.CharField()
    reason = serializers.CharField()
    actor = serializers.CharField()
    ignored_at = serializers.DateTimeField()
    masters = serializers.ListField(child=serializers.CharField(), help_text="The nodes that have this replica now")
