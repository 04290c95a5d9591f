"""The kinds of the actors in logs of before actors had one.

A name stood alone: a login name, a node's name, `agents` for the nodes of a batch, `system` for the program. Requests of
people had an id, messages of nodes had none. What can be either of both is unknown.
"""

from collections.abc import Mapping

from eventstore import actor_upcaster, person

#: Beginnings of the types of events that only people bring about, and the program (`system`).
_BY_PEOPLE = ("account.", "artifact.", "cluster.", "fleet.", "module.", "rollout.", "webhook.")
_BY_PEOPLE_ON_NODES = frozenset(
    {
        "node.labelled.v1",
        "node.drained.v1",
        "node.activated.v1",
        "node.decommissioned.v1",
        "node.forgotten.v1",
        "operation.cancel_requested.v1",
        "operation.scheduled.v1",
    }
)
#: Types of events that only nodes bring about.
_BY_NODES = frozenset(
    {
        "node.joined.v1",
        "node.profile_changed.v1",
        "node.inventory_changed.v1",
        "node.came_back.v1",
        "operation.progressed.v1",
        "operation.reported_late.v1",
        "report.rejected.v1",
    }
)
#: By a node, or by a person or the program.
_BY_EITHER = frozenset({"operation.finished.v1", "placement.forgotten.v1"})
_RECONCILED = frozenset({"node.drifted.v1", "node.drift_ended.v1"})


@actor_upcaster
def actor_with_kind(name: str, stream: str, metadata: Mapping[str, str]) -> str:
    """The actor of an event of the type `name` in `stream`."""
    actor = metadata.get("actor", "")
    if actor == "system":
        return _part_of_the_program(name)
    if name.startswith(_BY_PEOPLE) or name in _BY_PEOPLE_ON_NODES or metadata.get("request_id"):
        return person(actor)
    node = _node_of(stream)
    if node and actor in {node, "agents"} and name in _BY_NODES | _BY_EITHER:
        return f"node:{node}"
    return f"unknown:{actor}"


def _part_of_the_program(name: str) -> str:
    if name == "node.went_offline.v1":
        return "system:clock"
    if name in _RECONCILED:
        return "system:reconciler"
    return "system:relay" if name.startswith(("rollout.", "operation.", "placement.")) else "system:program"


def _node_of(stream: str) -> str:
    kind, _, rest = stream.partition(":")
    return rest.partition(":")[0] if kind in {"node", "placement"} else ""
