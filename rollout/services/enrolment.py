"""Join tokens, and the nodes that join with them."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated
from uuid import uuid4

import msgspec

from eventstore import (
    acting_as,
    append,
    current_request,
    database_now,
    load_state,
    retry_on_conflict,
    transact,
)
from rollout.domain.errors import InvalidRolloutError, InvalidTokenError
from rollout.domain.join_token.commands import CreateJoinToken, RevokeJoinToken, UseJoinToken
from rollout.domain.join_token.decider import JOIN_TOKEN
from rollout.domain.join_token.events import join_token_stream
from rollout.domain.join_token.state import JoinTokenState
from rollout.domain.node.commands import AddKey, EnrollNode
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import actor_of, node_stream
from rollout.domain.node.state import Identity, NodeKey, NodeState
from rollout.models import Liveness
from rollout.process.offline_nodes import is_silent
from rollout.process.placements import caused_changes, forgetting
from rollout.queries.join_tokens import GivenToken, secret_sha256_of
from rollout.queries.trust import control_secrets, said
from rollout.signing import (
    PROTOCOL,
    Envelope,
    PublicKey,
    Purpose,
    UntrustedError,
    is_public_key,
    key_id,
)

#: 64 hexadecimal digits.
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIdentity:
    """A node that wants to join. `proof`: the signature of the envelope that `proven` returns, in base64 for URLs."""

    node: str
    token: GivenToken
    public_key: str
    broker_password_sha256: str
    proof: str

    @property
    def key(self) -> NodeKey:
        return NodeKey(public_key=self.public_key, broker_password_sha256=self.broker_password_sha256)

    def proven(self, *, to: str) -> Envelope:
        """Return the envelope that the node has signed with its new key for the control plane's key `to`."""
        message = {
            "public_key": self.public_key,
            "broker_password_sha256": self.broker_password_sha256,
            "token_id": self.token.id,
        }
        return Envelope(
            protocol=PROTOCOL,
            purpose=Purpose.ENROL,
            node=self.node,
            key=key_id(self.public_key),
            peer=to,
            payload=msgspec.json.encode(message).decode(),
            signature=self.proof,
        )


def create_join_token(
    *,
    node: str = "",
    pattern: str = "",
    uses: int = 1,
    labels: dict[str, str],
    expires_in_seconds: int,
    auto_accept: bool = False,
    observe: bool = False,
) -> str:
    """Create a join token and return its id. Raises: `InvalidJoinTokenError`."""
    token = uuid4().hex
    create = CreateJoinToken(
        token=token,
        secret_sha256=secret_sha256_of(token),
        node=node,
        pattern=pattern,
        uses=uses,
        expires_at=database_now() + timedelta(seconds=expires_in_seconds),
        labels=labels,
        auto_accept=auto_accept,
        observe=observe,
    )
    transact(join_token_stream(token), JOIN_TOKEN, create)
    return token


def revoke_join_token(token: str) -> None:
    """End the token. Nodes that have used it keep their identity. Raises: `JoinTokenNotFoundError`."""
    transact(join_token_stream(token), JOIN_TOKEN, RevokeJoinToken(token=token))


def enrol(new: NewIdentity) -> bool:
    """Give the node its identity. Return False if the node has it already: the same request may be repeated.

    Raises: `InvalidTokenError`, `NodeExistsError`, `InvalidRolloutError`.
    """
    with acting_as(actor_of(new.node), correlation_id=current_request()):
        return _enrol(new)


@retry_on_conflict
def _enrol(new: NewIdentity) -> bool:
    token = load_state(join_token_stream(new.token.id), JOIN_TOKEN)
    used = JOIN_TOKEN.decide(
        token.state,
        UseJoinToken(
            token=new.token.id,
            secret_sha256=new.token.secret_sha256,
            node=new.node,
            public_key=new.public_key,
            now=database_now(),
        ),
    )
    _require_proof(new)
    node = load_state(node_stream(new.node), NODE)
    if not used and (node.state.decommissioned or new.key not in node.state.keys):
        raise InvalidTokenError  # it was revoked, or has another key since
    enrolled = NODE.decide(node.state, _enrolment(new, token.state, node.state))
    if not (used and enrolled):  # a node that has this key by another token does not use up this one
        return False
    use = token.append(used)
    join = node.append(enrolled, use.leads_to)
    forgets = forgetting(new.node) if node.state.decommissioned else []
    append(use, join, *caused_changes((each, join.leads_to) for each in forgets))
    return True


def _enrolment(new: NewIdentity, token: JoinTokenState, node: NodeState) -> EnrollNode:
    created = token.created
    if created is None:
        raise InvalidTokenError
    is_own = any(each.public_key == new.public_key for each in node.keys)
    # A person made the token for this one node, or has accepted its key. A node that was revoked needs a person again.
    is_known = bool(created.node) or (is_own and node.identity == Identity.SIGNED)
    life = Liveness.objects.filter(node=new.node).first()
    return EnrollNode(
        node=new.node,
        token=new.token.id,
        public_key=new.public_key,
        broker_password_sha256=new.broker_password_sha256,
        labels=created.labels,
        accepted=is_known or (created.auto_accept and not node.needs_person),
        # Both: the control worker declares no node offline while it cannot hear heartbeats.
        is_silent=not node.online and (life is None or is_silent(life, database_now())),
    )


def _require_proof(new: NewIdentity) -> None:
    """Raises: `InvalidRolloutError` unless the sender has the private key. Call this for known tokens only: it is slow."""
    if not is_public_key(new.public_key):
        raise InvalidRolloutError("public_key: must be 32 bytes of X25519, in base64 for URLs.")
    for secret in control_secrets():
        with suppress(UntrustedError):
            secret.verify(new.proven(to=secret.public.id), new.public_key)
            return
    raise InvalidRolloutError("proof: must be the signature with the new key, for this control plane.")


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a node asks for with the purpose `rekey`. `sent_at`: by its clock, Unix time in seconds."""

    public_key: PublicKey
    broker_password_sha256: Sha256
    sent_at: float


def add_key(envelope: Envelope) -> None:
    """Add the new key that a node has made, signed with its current one.

    Raises: `UntrustedNodeError` unless the envelope is from the node; `InvalidRolloutError`.
    """
    new = said(envelope, Purpose.REKEY, NewKey)
    if not is_public_key(new.public_key):
        raise InvalidRolloutError("public_key: must be 32 bytes of X25519, in base64 for URLs.")
    add = AddKey(node=envelope.node, public_key=new.public_key, broker_password_sha256=new.broker_password_sha256)
    with acting_as(actor_of(envelope.node), correlation_id=current_request()):
        transact(node_stream(envelope.node), NODE, add)
