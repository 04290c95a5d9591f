"""Events of `join_token:<id>`."""

from datetime import datetime

from eventstore import event


def join_token_stream(token: str) -> str:
    return f"join_token:{token}"


@event("join_token.created.v1")
class JoinTokenCreated:
    """A person created a join token. `token`: its id. `secret_sha256`: of its secret, which has 256 bits.

    A token is for one `node`, or for all nodes whose names match `pattern`; the other one is empty. `uses`: how many nodes
    may use it. `labels`: those that each node gets. `auto_accept`: no person has to accept its nodes. `observe`: its
    agents change nothing on their hosts.
    """

    token: str
    secret_sha256: str
    node: str
    pattern: str
    uses: int
    expires_at: datetime
    labels: dict[str, str]
    auto_accept: bool
    observe: bool


@event("join_token.used.v1")
class JoinTokenUsed:
    """A node exchanged the token for an identity. `public_key`: the node's key."""

    token: str
    node: str
    public_key: str


@event("join_token.revoked.v1")
class JoinTokenRevoked:
    """A person revoked the token: no node can use it any more. Nodes that have used it keep their identity."""

    token: str


JoinTokenEvent = JoinTokenCreated | JoinTokenUsed | JoinTokenRevoked
