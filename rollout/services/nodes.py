"""Use cases of nodes: label, set the address, drain, activate, forget, accept, revoke, rekey, decommission. Each may be repeated."""

from collections.abc import Callable, Collection

from django.db import transaction

from eventstore import Append, Batch, Condition, append, head, load_state, load_states, retry_on_conflict, transact
from rollout.agent.control_plane.identity import Identity
from rollout.agent.control_plane.rotation import password_hash
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
    SetAddress,
)
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import node_stream
from rollout.domain.node.state import NodeKey
from rollout.domain.placement.events import placement_stream
from rollout.domain.topology.addresses import checked
from rollout.models import Liveness, NodeFacts, Operation, ShardMember
from rollout.process.advance import advance_all
from rollout.process.placements import end_of_decommissioned, forgetting, giving_back, placement_changes
from rollout.process.shards import place_members
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


def set_address(name: str, address: str) -> None:
    """Set the address by which other servers know the node's server: `host:port`, or empty to remove it.

    Raises: `NodeNotFoundError`, `NodePhaseError`, `InvalidAddressError`.
    """
    with transaction.atomic():
        transact(node_stream(name), NODE, SetAddress(node=name, address=checked(address) if address else ""))
        changed = place_members()
    advance_all(unfinished_rollouts_of(*changed))


def drain_node(name: str) -> None:
    """Start no new operations on the node. Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, DrainNode(node=name))


def activate_node(name: str) -> None:
    """End the draining of the node. Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, ActivateNode(node=name))
    advance_all(unfinished_rollouts_of(name))


def forget_node(name: str) -> None:
    """Forget what the node has reported: it is offline until its next heartbeat, which counts as its first.

    Raises: `NodeNotFoundError`, `NodePhaseError`.
    """
    with transaction.atomic():
        transact(node_stream(name), NODE, ForgetNode(node=name))
        Liveness.objects.filter(node=name).delete()
        NodeFacts.objects.filter(node=name).delete()
        ShardMember.objects.filter(node=name).delete()
        changed = place_members()
    advance_all(unfinished_rollouts_of(*changed))


def accept_node(name: str, *, key: str) -> None:
    """Accept a pending node. `key`: the id of the key that it must have.

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

    def following(operations: list[Operation]) -> list[Append]:
        return [*_token_revocations(open_tokens_of(name)), *placement_changes(giving_back(operations))]

    _leave(name, RevokeNode(node=name), following, rollouts)


def _token_revocations(tokens: Collection[str]) -> list[Append]:
    states, changes = load_states(map(join_token_stream, tokens), JOIN_TOKEN), Batch()
    for each in tokens:
        changes.decide(states[join_token_stream(each)], JOIN_TOKEN, RevokeJoinToken(token=each))
    return changes.appends()


def decommission_node(name: str) -> None:
    """Remove the node from the fleet; its unfinished operations are canceled. Raises: `NodeNotFoundError`."""
    rollouts = unfinished_rollouts_of(name)

    def following(operations: list[Operation]) -> list[Append]:
        return placement_changes([*map(end_of_decommissioned, operations), *forgetting(name)])

    _leave(name, DecommissionNode(node=name), following, rollouts)


def _leave(
    name: str,
    command: RevokeNode | DecommissionNode,
    following: Callable[[list[Operation]], list[Append]],
    rollouts: Collection[str],
) -> None:
    """Append as `_append` does. The node has no place in its shard any more, so the places of others may change."""
    with transaction.atomic():
        _append(name, command, following)
        changed = place_members()
    advance_all(dict.fromkeys([*rollouts, *unfinished_rollouts_of(*changed)]))


@retry_on_conflict
def _append(
    name: str, command: RevokeNode | DecommissionNode, following: Callable[[list[Operation]], list[Append]]
) -> None:
    """Append what the node decides, and what is `following` for its unfinished operations."""
    after = head()
    loaded = load_state(node_stream(name), NODE)
    events = NODE.decide(loaded.state, command)
    operations = unfinished_operations_of(name)
    as_read = Condition(
        after=after,
        # Their phases decide what follows, and one may be released in between.
        streams=[placement_stream(name, each.module_name) for each in operations],
        event_types=SCHEDULING,
    )
    first, others = loaded.append(events), following(operations)
    if events:  # else an earlier request has decided it, and this request alone causes what follows
        others = [each.with_metadata(first.leads_to) for each in others]
    append(first, *others, unless=[as_read])
