"""Finds nodes whose server has not loaded the artifact's file from a path that is not Modfleet's: nothing is adopted there."""

from collections.abc import Mapping, Sequence
from typing import Any

from rollout.domain.placement.commands import Skip
from rollout.messages import Reason
from rollout.models import Node, NodeFacts
from rollout.planning.catalogue import ModuleVersion


def skips_for_adoption(module: ModuleVersion, nodes: Sequence[Node]) -> dict[str, Skip]:
    """Return the nodes to skip, by their newest heartbeats. One query. The agent checks all of it again."""
    facts = dict(NodeFacts.objects.filter(node__in=[node.name for node in nodes]).values_list("node", "server"))
    return {node.name: skip for node in nodes if (skip := _skip(module, node, facts.get(node.name, {})))}


def _skip(module: ModuleVersion, node: Node, server: Mapping[str, Any]) -> Skip | None:
    loaded = next((each for each in server.get("modules", ()) if each["name"] == module.module_name), None)
    if loaded is None:
        return Reason.NOTHING_TO_ADOPT, f"The server of {node.name} has not loaded {module.module_name}."
    name = f"{module.module_name} {loaded['version']}"
    if loaded.get("ours"):
        return Reason.NOTHING_TO_ADOPT, f"{name} of {node.name} is Modfleet's already."
    where = f"{name} on {node.name}, from {loaded['path']}"
    if obstacle := loaded.get("obstacle"):
        return Reason.PERSISTENCE_CONFLICT, f"{where}: {obstacle}"
    if not loaded.get("sha256"):
        return Reason.AGENT_TOO_OLD, f"{where}: the agent does not report its digest. Upgrade the agent."
    build = module.build_for(node.fitting_platforms)
    if loaded["version"] != module.version or build is None or loaded["sha256"] != build.module_sha256:
        return Reason.MODULE_NOT_OURS, f"{where}: it is not the file of {module.module_name} {module.version}."
    return None
