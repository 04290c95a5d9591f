"""Use cases of nodes: label, drain, activate, forget, accept, revoke, rekey, decommission. Each may be repeated."""

from collections.abc import Collection

from django.db import transaction

from eventstore import Append, Batch, Condition, append, head, load_state, load_states, retry_on_conflict, transact
from rollout.agent.identity import Identity
from rollout.agent.rotation import password_hash
from rollout.domain.conditions import SCHEDULING
from rollout.domain.join_token.commands import RevokeJoinToken
from rollout.domain.join_token.decider import JOIN_TOKEN
from rollout.domain.join_token.events import join_token_stream
from rollout.domain.node.commands import (
    AcceptNode,
    ActivateNode,
    DecommissionNode,
    DrainNode,
    EnrollNode,
    ForgetNode,
    LabelNode,
    RequestRekey,
    RevokeNode,
)
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import node_stream
from rollout.domain.node.state import NodeKey
from rollout.domain.placement.events import placement_stream
from rollout.models import Liveness, NodeFacts
from rollout.process.advance import advance_all
from rollout.process.placements import end_of_decommissioned, forgetting, giving_back, placement_changes
from rollout.queries.join_tokens import open_tokens_of
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
    NodeFacts.objects.filter(node=name).delete()


def accept_node(name: str, *, key: str = "") -> None:
    """Accept a pending node. `key`: the id of the key that it must have; empty for any.

    Raises: `NodeNotFoundError`, `NodeIdentityError`, `NodeKeyError`.
    """
    transact(node_stream(name), NODE, AcceptNode(node=name, key=key))


def request_rekey(name: str) -> None:
    """Ask the node to replace its key. Raises: `NodeNotFoundError`, `NodeIdentityError`."""
    transact(node_stream(name), NODE, RequestRekey(node=name))


def revoke_node(name: str) -> None:
    """Refuse all messages of the node until it joins again, and revoke the join tokens that were made for it.

    What it has not started is withdrawn; what it works on ends by its deadline. Raises: `NodeNotFoundError`.
    """
    rollouts = unfinished_rollouts_of(name)
    _revoke(name)
    advance_all(rollouts)


@retry_on_conflict
def _revoke(name: str) -> None:
    after = head()
    loaded = load_state(node_stream(name), NODE)
    events = NODE.decide(loaded.state, RevokeNode(node=name))
    tokens = _token_revocations(open_tokens_of(name))
    operations = unfinished_operations_of(name)
    as_read = Condition(
        after=after,
        streams=[placement_stream(name, each.module_name) for each in operations],  # one may be released in between
        event_types=SCHEDULING,
    )
    first = loaded.append(events)
    following = [*tokens, *placement_changes(giving_back(operations))]
    if events:
        following = [each.with_metadata(first.leads_to) for each in following]
    append(first, *following, unless=[as_read])


def _token_revocations(tokens: Collection[str]) -> list[Append]:
    states, changes = load_states(map(join_token_stream, tokens), JOIN_TOKEN), Batch()
    for each in tokens:
        changes.decide(states[join_token_stream(each)], JOIN_TOKEN, RevokeJoinToken(token=each))
    return changes.appends()


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
