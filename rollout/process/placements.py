"""Changes to the placements of many nodes at once: what a service appends after the events of its own stream."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import decoding
from eventstore import Append, Batch, Metadata, current_metadata, load_states
from rollout.domain.node.events import ABSENT
from rollout.domain.placement.commands import (
    End,
    Forget,
    GiveBack,
    PlacementCommand,
    RecordReport,
    RejectReport,
    Release,
)
from rollout.domain.placement.decider import PLACEMENT
from rollout.domain.placement.events import Target, placement_stream
from rollout.messages import Activation, Phase, Reason, Replication
from rollout.models import NodeModule, Operation, ShardMember
from rollout.queries.modules import modules_known_on, modules_on


def placement_changes(commands: Iterable[PlacementCommand]) -> list[Append]:
    """Return what to append to the placement streams; a constant number of queries for each 500 of them."""
    metadata = current_metadata()
    return caused_changes((command, metadata) for command in commands)


def caused_changes(commands: Iterable[tuple[PlacementCommand, Metadata]]) -> list[Append]:
    """Return the same; each command comes with the metadata of its events."""
    by_stream = [(_stream_of(command), command, metadata) for command, metadata in commands]
    states = load_states([stream for stream, _, _ in by_stream], PLACEMENT)
    first = [
        command for stream, command, _ in by_stream if isinstance(command, Release) and states[stream].state.had is None
    ]
    inventories = _inventories(first)
    places = _places([each.node for _, each, _ in by_stream if isinstance(each, Release)])
    changes = Batch()
    for stream, command, metadata in by_stream:
        changes.decide(states[stream], PLACEMENT, _informed(command, inventories, places), metadata)
    return changes.appends()


def _informed(
    command: PlacementCommand,
    inventories: Mapping[tuple[str, str], tuple[Target, ...]],
    places: Mapping[str, Replication],
) -> PlacementCommand:
    if not isinstance(command, Release):
        return command
    inventory = inventories.get((command.node, command.module_name), ())
    return replace(command, inventory=inventory, expects=places.get(command.node))


def _places(nodes: Collection[str]) -> dict[str, Replication]:
    """Return the place of each node's server in its shard, as its agent has last reported it."""
    rows = ShardMember.objects.filter(node__in=nodes).values_list("node", "replication") if nodes else ()
    return {node: decoding.convert(replication, Replication) for node, replication in rows}


def _inventories(releases: Sequence[Release]) -> dict[tuple[str, str], tuple[Target, ...]]:
    """Return what the nodes were last observed to have, by node and module; one query for each module."""
    if not releases:
        return {}
    of_module: dict[str, dict[str, list[NodeModule]]] = {}
    for name in {each.module_name for each in releases}:
        of_module[name] = modules_on([each.node for each in releases if each.module_name == name], name)
    return {
        (each.node, each.module_name): tuple(
            Target(version=row.version, activation=Activation(row.observed), content_sha256=row.content_sha256)
            for row in sorted(of_module[each.module_name].get(each.node, ()), key=lambda row: row.version)
            if row.observed != ABSENT
        )
        for each in releases
    }


def forgetting(*names: str) -> list[Forget]:
    """Return the commands that forget the desired state of nodes that leave or join the fleet."""
    return [Forget(node=node, module_name=name) for node, name in modules_known_on(*names)]


def _stream_of(command: PlacementCommand) -> str:
    if isinstance(command, RecordReport | RejectReport):
        return placement_stream(command.report.node, command.report.module_name)
    return placement_stream(command.node, command.module_name)


def giving_back(operations: Iterable[Operation]) -> list[GiveBack]:
    """Return the commands that withdraw what nodes have not started."""
    return [GiveBack(node=each.node, module_name=each.module_name) for each in operations if each.phase == Phase.QUEUED]


def end_of_decommissioned(operation: Operation) -> End:
    """Return how an operation ends if its node is decommissioned: canceled, for that is no failure of the module."""
    return End(
        rollout=operation.rollout,
        node=operation.node,
        module_name=operation.module_name,
        phase=Phase.CANCELED,
        reason=Reason.NODE_DECOMMISSIONED,
        message=f"{operation.node} was decommissioned.",
    )
