"""Commands of one join token. Those about a token that does not exist raise `JoinTokenNotFoundError`."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateJoinToken:
    """Create the token, for one `node` or for a `pattern` of names, in which `*` stands for any characters.

    Raises: `InvalidJoinTokenError` unless exactly one of both is given, and the token has 1 to `MOST_USES` uses; 1 if it is
    for one node.
    """

    token: str
    secret_sha256: str
    node: str = ""
    pattern: str = ""
    uses: int = 1
    expires_at: datetime
    labels: dict[str, str]
    auto_accept: bool = False
    observe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UseJoinToken:
    """Exchange the token for an identity of the node. Do nothing if this node has used the token with this key.

    `now`: the time of the database. Raises: `InvalidTokenError`; it never says why.
    """

    token: str
    secret_sha256: str
    node: str
    public_key: str
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeJoinToken:
    """End the token. Do nothing if it is revoked."""

    token: str


JoinTokenCommand = CreateJoinToken | UseJoinToken | RevokeJoinToken
