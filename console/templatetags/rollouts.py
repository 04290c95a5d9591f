"""Filters for the pages of rollouts."""

from collections.abc import Sequence
from typing import Any

from django import template

from ui.cells import page_url

register = template.Library()
#: How many nodes a sentence names.
NAMED = 8


@register.filter
def node_page(name: str) -> str:
    return page_url("rollout_node", name)


@register.filter
def plain(word: str) -> str:
    return word.replace("_", " ")


@register.filter
def words(value: Any) -> str:
    """Return a value of the strategy in words."""
    match value:
        case None | [] | "":
            return "none"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(str(each) for each in value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


@register.filter
def names(nodes: Sequence[str]) -> str:
    more = len(nodes) - NAMED
    return ", ".join(nodes[:NAMED]) + (f" and {more} more" if more > 0 else "")


@register.filter
def unchanged(nodes: Sequence[dict[str, Any]]) -> int:
    """Return how many of the planned nodes are expected to need no change."""
    return sum(each["expected"] is not None for each in nodes)


@register.filter
def restarted(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the planned nodes whose server is restarted."""
    return [each for wave in plan["waves"] for each in wave["nodes"] if each["restart"]]


@register.filter
def fails_over(restarted: list[dict[str, Any]]) -> bool:
    """Return True if one of the nodes gives its role as the master away."""
    return any(each["restart"]["failover"] for each in restarted)


@register.filter
def artifact(key: str) -> str:
    return key.replace("/", " ")
