"""Answers about ignored replicas."""

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet

from api.fields import rfc3339
from rollout.domain.errors import IgnoredReplicaNotFoundError
from rollout.models import IgnoredReplica, ShardMember


def ignored_replicas() -> QuerySet[IgnoredReplica]:
    return IgnoredReplica.objects.all()


def ignored_addresses() -> frozenset[str]:
    return frozenset(IgnoredReplica.objects.values_list("address", flat=True))


def ignored_replica(address: str) -> IgnoredReplica:
    """Raises: `IgnoredReplicaNotFoundError`."""
    row = IgnoredReplica.objects.filter(address=address).first()
    if row is None:
        raise IgnoredReplicaNotFoundError
    return row


def ignored_documents(rows: Iterable[IgnoredReplica]) -> list[dict[str, Any]]:
    """Return the ignored replicas as JSON, with the nodes that have them as replicas; one query."""
    masters: dict[str, list[str]] = {}
    members = ShardMember.objects.exclude(ignored=[]).order_by("node")
    for node, addresses in members.values_list("node", "ignored"):
        for address in addresses:
            masters.setdefault(address, []).append(node)
    return [
        {
            "address": row.address,
            "reason": row.reason,
            "actor": row.actor,
            "ignored_at": rfc3339(row.ignored_at),
            "masters": masters.get(row.address, []),
        }
        for row in rows
    ]
