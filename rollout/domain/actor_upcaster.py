"""Kinds of actors for events in older logs, where an actor was only a name.

The name is a user's login, a node's name, `agents` for several nodes, or `system` for the program. Requests of people had
an id, messages of nodes had none. An actor that may be a person or a node gets the kind `unknown`.
"""

from collections.abc import Mapping

from eventstore import actor_upcaster, person

#: Prefixes of event types that only people and the program (`system`) cause.
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
#: Event types that only nodes cause.
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
#: Event types that nodes, people or the program cause.
_BY_EITHER = frozenset({"operation.finished.v1", "placement.forgotten.v1"})
_RECONCILED = frozenset({"node.drifted.v1", "node.drift_ended.v1"})


@actor_upcaster
def actor_with_kind(name: str, stream: str, metadata: Mapping[str, str]) -> str:
    """Return the actor, with its kind, of an event of the type `name` in `stream`."""
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
