"""Use cases of nodes: label, drain, activate, forget, decommission. Each may be repeated."""

from django.db import transaction

from eventstore import Condition, append, head, load_state, retry_on_conflict, transact
from rollout.agent.identity import Identity
from rollout.agent.rotation import password_hash
from rollout.domain.conditions import SCHEDULING
from rollout.domain.node.commands import ActivateNode, DecommissionNode, DrainNode, EnrollNode, ForgetNode, LabelNode
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import node_stream
from rollout.domain.node.state import NodeKey
from rollout.domain.placement.events import placement_stream
from rollout.models import Liveness
from rollout.process.advance import advance_all
from rollout.process.placements import end_of_decommissioned, forgetting, placement_changes
from rollout.queries.operations import unfinished_operations_of
from rollout.queries.rollouts import unfinished_rollouts_of


def enrol_own_node(identity: Identity) -> None:
    """Give a node of the embedded cluster its identity. It needs no token: the process that made the key calls this."""
    credentials = identity.credentials
    key = NodeKey(public_key=credentials.secret.public, broker_password_sha256=password_hash(credentials))
    if key in load_state(node_stream(identity.node), NODE).state.keys:
        return  # a decommissioned node stays so, until its agent says hello
    command = EnrollNode(
        node=identity.node,
        token="",
        public_key=key.public_key,
        broker_password_sha256=key.broker_password_sha256,
        labels={},
        accepted=True,
        is_silent=True,
    )
    transact(node_stream(identity.node), NODE, command)


def label_node(name: str, labels: dict[str, str]) -> None:
    """Replace the labels that an operator gave. Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, LabelNode(node=name, labels=labels))


def drain_node(name: str) -> None:
    """Start no new operations on the node. Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, DrainNode(node=name))


def activate_node(name: str) -> None:
    """End the draining of the node. Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, ActivateNode(node=name))
    advance_all(unfinished_rollouts_of(name))


@transaction.atomic
def forget_node(name: str) -> None:
    """Forget what the node has reported: it is offline until its next heartbeat, which counts as its first.

    Raises: `NodeNotFoundError`, `NodePhaseError`.
    """
    transact(node_stream(name), NODE, ForgetNode(node=name))
    Liveness.objects.filter(node=name).delete()


def decommission_node(name: str) -> None:
    """Remove the node from the fleet; its unfinished operations are canceled. Raises: `NodeNotFoundError`."""
    rollouts = unfinished_rollouts_of(name)
    _decommission(name)
    advance_all(rollouts)


@retry_on_conflict
def _decommission(name: str) -> None:
    after = head()
    loaded = load_state(node_stream(name), NODE)
    events = NODE.decide(loaded.state, DecommissionNode(node=name))
    operations = unfinished_operations_of(name)
    ends = [end_of_decommissioned(each) for each in operations]
    as_read = Condition(
        after=after,
        streams=[placement_stream(name, each.module_name) for each in operations],  # their phases decide how they end
        event_types=SCHEDULING,
    )
    first = loaded.append(events)
    following = placement_changes([*ends, *forgetting(name)])
    if events:  # else it was decommissioned before, and this request alone causes what follows
        following = [each.with_metadata(first.leads_to) for each in following]
    append(first, *following, unless=[as_read])
