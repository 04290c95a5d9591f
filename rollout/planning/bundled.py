"""Finds nodes whose server has the module built in, or from its own package: it is neither replaced nor removed there."""

from collections.abc import Sequence

from rollout.domain.placement.commands import Skip
from rollout.messages import Reason
from rollout.models import Node, NodeFacts


def skips_for_bundled_modules(module_name: str, nodes: Sequence[Node]) -> dict[str, Skip]:
    """Return the nodes to skip, each with the reason `bundled`. At most one query."""
    others = {node.name for node in nodes if module_name in node.other_modules}
    if not others:
        return {}
    facts = NodeFacts.objects.filter(node__in=others).values_list("node", "server")
    return {
        node: (Reason.BUNDLED, f"The server of {node} has {module_name} {module['version']} {_whence(module['path'])}.")
        for node, server in facts
        for module in server.get("modules", ())
        if module["name"] == module_name and module.get("bundled")
    }


def _whence(path: str) -> str:
    return f"from its own package: {path}" if "/" in path else "built in"
