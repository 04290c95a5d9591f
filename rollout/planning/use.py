"""Refuses to remove a module whose commands were called lately, by the newest heartbeats."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from eventstore import database_now
from rollout.domain.errors import CommandsInUseError
from rollout.domain.words import some_of
from rollout.messages import Activation
from rollout.models import Node, NodeFacts, ShardMember
from rollout.planning.observed import Observed

#: Heartbeats that are older say nothing about the last 10 minutes.
NEWEST = timedelta(minutes=10)


def refuse_if_used(module_name: str, version: int, nodes: Sequence[Node], observed: Observed) -> None:
    """Raise `CommandsInUseError` if a command of the module was called on a node that would unload it, or on another copy
    of its shard. Three queries. What no heartbeat says, the agents find out before they unload anything."""
    unloading = {node.name for node in nodes if _is_loaded(module_name, version, node, observed)}
    if not unloading:
        return
    shards = set(ShardMember.objects.filter(node__in=unloading).values_list("shard", flat=True))
    copies = set(ShardMember.objects.filter(shard__in=shards).values_list("node", flat=True)) if shards else set()
    facts = NodeFacts.objects.filter(node__in=unloading | copies, reported_at__gt=database_now() - NEWEST)
    used = [
        (node, module)
        for node, server in facts.order_by("node").values_list("node", "server")
        for module in server.get("modules", ())
        if module["name"] == module_name and module.get("ours") and module.get("recent_calls")
    ]
    if used:
        node, module = used[0]
        clients = f" Newest clients: {', '.join(module['clients'])}." if module.get("clients") else ""
        raise CommandsInUseError(
            f"Commands of {module_name} were called in the last 10 minutes on {some_of([name for name, _ in used])}. "
            f"On {node}: {_calls(module)}.{clients} "
            'Stop these clients and retry 10 minutes later, or send "even_if_used": true.'
        )


def _calls(module: Mapping[str, Any]) -> str:
    count, most = module["recent_calls"], module["most_called"]
    return f"1 call, of {most}" if count == 1 else f"{count} calls, most of them of {most}"


def _is_loaded(module_name: str, version: int, node: Node, observed: Observed) -> bool:
    row = observed.version(module_name, version, node.name)
    return row is not None and row.observed == Activation.LOAD
