"""Clients that have lately called commands of a module, by the newest heartbeats."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from eventstore import database_now
from rollout.domain.words import as_name, some_of
from rollout.models import NodeFacts

#: Heartbeats that are older say nothing about the last 10 minutes.
NEWEST = timedelta(minutes=10)


def calls_on(module_name: str, nodes: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """Return the `messages.ServerModule` of each of these nodes on which a command of the module was called in the last
    10 minutes, by name. One query."""
    facts = NodeFacts.objects.filter(node__in=nodes, reported_at__gt=database_now() - NEWEST)
    return {
        node: module
        for node, modules in facts.order_by("node").values_list("node", "server__modules")
        for module in modules or ()
        if module["name"] == module_name and module.get("ours") and module.get("recent_calls")
    }


def in_words(module_name: str, used: Mapping[str, Mapping[str, Any]]) -> str:
    """Return as sentences where it is used, and what a person can do. `used` is what `calls_on` returns."""
    # The calls of a replica are its master's: only that knows the clients.
    node, module = min(used.items(), key=lambda each: not each[1].get("clients"))
    clients = f" Newest clients: {', '.join(map(as_name, module['clients']))}." if module.get("clients") else ""
    return (
        f"Commands of {module_name} were called in the last 10 minutes on {some_of(list(used))}. "
        f"On {node}: {_calls(module)}.{clients} "
        'Stop these clients and retry 10 minutes later, or send "even_if_used": true.'
    )


def _calls(module: Mapping[str, Any]) -> str:
    count, most = module["recent_calls"], as_name(module["most_called"])
    return f"1 call, of {most}" if count == 1 else f"{count} calls, most of them of {most}"
