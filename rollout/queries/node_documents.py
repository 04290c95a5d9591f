"""Nodes as JSON."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from api.fields import rfc3339
from eventstore import snapshot
from rollout.messages import Reason, ServerModule, ServerState
from rollout.models import Liveness, Node, NodeFacts, NodeModule, ShardMember
from rollout.queries.node_warnings import node_warnings
from rollout.queries.nodes import node_row
from rollout.signing import key_id


@snapshot()
def node_documents(rows: Iterable[Node]) -> list[dict[str, Any]]:
    """Return the nodes as JSON, with their modules and their places in their shards; five queries, however many nodes there are."""
    listed = list(rows)
    names = [each.name for each in listed]
    lives = Liveness.objects.in_bulk(names)
    modules: dict[str, list[NodeModule]] = {name: [] for name in names}
    for row in NodeModule.objects.filter(node__in=names).order_by("module_name", "version"):
        modules[row.node].append(row)
    members = ShardMember.objects.in_bulk(names)
    facts = {node: counts for node, *counts in NodeFacts.objects.filter(node__in=names).values_list(*_COUNTS)}
    documents = []
    for each in listed:
        failed, warned, sentinels, loaded = facts.get(each.name, (None, None, None, None))
        summary = None if failed is None else {"failed": failed, "warned": warned}
        document = node_document(each, modules[each.name], lives.get(each.name), members.get(each.name))
        foreign = [_UNKNOWN_MODULE | each for each in loaded or () if not each.get("ours") and not each.get("bundled")]
        documents.append(document | {"doctor_summary": summary, "sentinels": sentinels, "foreign_modules": foreign})
    return documents


_COUNTS = ("node", "failed", "warned", "server__sentinels", "server__modules")
#: Facts that an older version has stored lack the newest fields.
_UNKNOWN: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(ServerState()))
_UNKNOWN_MODULE: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(ServerModule(name="", version=0)))


def node_detail(name: str) -> dict[str, Any]:
    """Return the node as JSON, with all that its agent has reported about its server. Raises: `NodeNotFoundError`."""
    (document,) = node_documents([node_row(name)])
    return detailed_node(document, NodeFacts.objects.filter(node=name).first())


def detailed_node(document: dict[str, Any], facts: NodeFacts | None) -> dict[str, Any]:
    """Return the document of a node with these facts."""
    return document | {
        "server_state": None if facts is None else _server_state(facts),
        "doctor": None if facts is None else facts.doctor,
        "examined_at": rfc3339(facts.examined_at) if facts and facts.examined_at else None,
    }


def _server_state(facts: NodeFacts) -> dict[str, Any]:
    server: dict[str, Any] = _UNKNOWN | facts.server | {"reported_at": rfc3339(facts.reported_at)}
    changes = [
        each | {"at": rfc3339(datetime.fromtimestamp(each["at"], UTC))} for each in server["configuration_changes"]
    ]
    return server | {"configuration_changes": changes}


def degraded_document(row: Node) -> dict[str, str] | None:
    """Return why the node's server cannot be used; None if it can."""
    return {"reason": row.degraded_reason, "message": row.degraded_message} if row.degraded_reason else None


def node_document(
    row: Node, modules: Iterable[NodeModule], life: Liveness | None, member: ShardMember | None
) -> dict[str, Any]:
    """Return the node as JSON, with these of its modules."""
    skew = life.clock_skew_seconds if life else None
    return {
        "name": row.name,
        "phase": row.phase,
        "identity": row.identity,
        "keys": [key_id(public_key) for public_key, _ in row.keys],
        "duplicate": row.duplicate,
        "degraded": degraded_document(row),
        "last_seen": rfc3339(life.last_seen) if life else None,
        "clock_skew_seconds": None if skew is None else round(skew, 1),
        "warnings": node_warnings(row, skew, life.doubts if life else []),
        "platform": row.platform,
        "operating_system": row.operating_system,
        "server": row.server,
        "server_version": row.server_version,
        "role": row.role,
        "address": row.address or None,
        **place_document(member),
        "sentinels": None,
        "foreign_modules": [],
        "labels": {**row.agent_labels, **row.labels},
        "other_modules": row.other_modules,
        "doctor_summary": None,
        "modules": [_node_module_document(each) for each in modules],
    }


def place_document(member: ShardMember | None) -> dict[str, Any]:
    """Return the node's place in its shard; null, or empty, if it is not known."""
    if member is None:
        return {
            "shard": None,
            "master": None,
            "depth": None,
            "replicas": [],
            "unmanaged_replicas": [],
            "ignored_replicas": [],
            "not_ready": None,
        }
    not_ready = {"reason": member.not_ready, "message": member.not_ready_message}
    return {
        "shard": member.shard,
        "master": member.master or member.unmanaged_master or None,
        "depth": member.depth,
        "replicas": member.replicas,
        "unmanaged_replicas": member.unmanaged,
        "ignored_replicas": member.ignored,
        "not_ready": not_ready | {"since": rfc3339(member.not_ready_since)} if member.not_ready_since else None,
    }


def shard_nodes(members: Iterable[ShardMember]) -> list[dict[str, Any]]:
    """Return the nodes with their places in their shards as JSON, in the given order; two queries."""
    listed = list(members)
    names = [each.node for each in listed]
    phases = dict(Node.objects.filter(name__in=names).values_list("name", "phase"))
    sentinels = dict(NodeFacts.objects.filter(node__in=names).values_list("node", "server__sentinels"))
    return [
        {
            "name": each.node,
            "phase": phases[each.node],
            "role": each.role,
            "sentinels": sentinels.get(each.node),
            **place_document(each),
        }
        for each in listed
    ]


def drift_reason(row: NodeModule) -> Reason | None:
    """Return why the module has drifted, None if it has not, or if the cause is not known."""
    return Reason.UNLOADED_BY_HAND if row.drifted_at and row.unloaded_by_hand else None


def _node_module_document(row: NodeModule) -> dict[str, Any]:
    return {
        "module_name": row.module_name,
        "version": row.version,
        "desired": row.desired,
        "desired_sha256": row.desired_sha256 or None,
        "observed": row.observed,
        "state": row.state,
        "drifted_at": rfc3339(row.drifted_at) if row.drifted_at else None,
        "drift_reason": drift_reason(row),
        "content_sha256": row.content_sha256 or None,
        "loaded": row.observed == "load",
    }
