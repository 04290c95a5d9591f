"""Refuses to remove a module whose commands were called lately, by the newest heartbeats. The release looks again."""

from collections.abc import Sequence

from rollout.domain.errors import CommandsInUseError
from rollout.messages import Activation
from rollout.models import Node, ShardMember
from rollout.planning.observed import Observed
from rollout.queries.turns import certain_copies
from rollout.queries.use import calls_on, in_words


def refuse_if_used(module_name: str, version: int, nodes: Sequence[Node], observed: Observed) -> None:
    """Raise `CommandsInUseError` if a command of the module was called on a node that would unload it, or on another copy
    of its shard. Three queries. What no heartbeat says, the agents find out before they unload anything. The release waits for a
    node that only says that it is such a copy."""
    unloading = {node.name for node in nodes if _is_loaded(module_name, version, node, observed)}
    if not unloading:
        return
    shards = set(ShardMember.objects.filter(node__in=unloading).values_list("shard", flat=True))
    rows = ShardMember.objects.filter(shard__in=shards).defer("facts", "replication", "migrations") if shards else ()
    members = {each.node: each for each in rows}
    copies = {copy for each in unloading & members.keys() for copy in certain_copies(each, members)}
    if used := calls_on(module_name, unloading | copies):
        raise CommandsInUseError(in_words(module_name, used))


def _is_loaded(module_name: str, version: int, node: Node, observed: Observed) -> bool:
    row = observed.version(module_name, version, node.name)
    return row is not None and row.observed == Activation.LOAD
