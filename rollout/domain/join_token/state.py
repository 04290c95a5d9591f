"""The state of one join token, and how each event changes it."""

from dataclasses import dataclass, replace

from rollout.domain.join_token.events import JoinTokenCreated, JoinTokenEvent, JoinTokenRevoked, JoinTokenUsed


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTokenState:
    """`created` is None until the token exists. `used`: each use, as node and public key."""

    created: JoinTokenCreated | None = None
    used: frozenset[tuple[str, str]] = frozenset()
    revoked: bool = False


def evolve(state: JoinTokenState, event: JoinTokenEvent) -> JoinTokenState:
    match event:
        case JoinTokenCreated():
            return JoinTokenState(created=event)
        case JoinTokenUsed(node=node, public_key=public_key):
            return replace(state, used=state.used | {(node, public_key)})
        case JoinTokenRevoked():
            return replace(state, revoked=True)
