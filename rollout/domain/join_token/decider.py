"""The rules of one join token: who may use it, how often, and until when."""

import hmac
import re
from fnmatch import fnmatchcase

from eventstore import Decider
from rollout.domain.errors import InvalidJoinTokenError, InvalidTokenError, JoinTokenNotFoundError
from rollout.domain.join_token.commands import CreateJoinToken, JoinTokenCommand, RevokeJoinToken, UseJoinToken
from rollout.domain.join_token.events import JoinTokenCreated, JoinTokenEvent, JoinTokenRevoked, JoinTokenUsed
from rollout.domain.join_token.state import JoinTokenState, evolve

MOST_USES = 10_000
_PATTERN = re.compile(r"(?=.*[A-Za-z0-9])(?=.*\*)[A-Za-z0-9_.*-]{1,128}", re.ASCII)


def decide(state: JoinTokenState, command: JoinTokenCommand) -> list[JoinTokenEvent]:
    match command:
        case CreateJoinToken():
            return _create(command)
        case UseJoinToken():
            return _use(state, command)
        case RevokeJoinToken() if state.created is None:
            raise JoinTokenNotFoundError
        case RevokeJoinToken(token=token):
            return [] if state.revoked else [JoinTokenRevoked(token=token)]


def _create(command: CreateJoinToken) -> list[JoinTokenEvent]:
    if bool(command.node) == bool(command.pattern):
        raise InvalidJoinTokenError("Give either node or pattern.")
    if command.pattern and not _PATTERN.fullmatch(command.pattern):
        raise InvalidJoinTokenError(
            "pattern: must have a *, a letter or digit, and at most 128 characters. Allowed are letters, digits, -, _, . and *."
        )
    most = MOST_USES if command.pattern else 1
    if not 1 <= command.uses <= most:
        raise InvalidJoinTokenError(f"uses: must be from 1 to {most}.")
    return [
        JoinTokenCreated(
            token=command.token,
            secret_sha256=command.secret_sha256,
            node=command.node,
            pattern=command.pattern,
            uses=command.uses,
            expires_at=command.expires_at,
            labels=command.labels,
            auto_accept=command.auto_accept or bool(command.node),  # a person made it for this node
            observe=command.observe,
        )
    ]


def _use(state: JoinTokenState, command: UseJoinToken) -> list[JoinTokenEvent]:
    created = state.created
    if created is None or state.revoked or not hmac.compare_digest(created.secret_sha256, command.secret_sha256):
        raise InvalidTokenError
    if (command.node, command.public_key) in state.used:
        return []
    is_for_node = fnmatchcase(command.node, created.pattern or created.node)  # only `*` is special in them
    if not is_for_node or len(state.used) >= created.uses or command.now >= created.expires_at:
        raise InvalidTokenError
    return [JoinTokenUsed(token=command.token, node=command.node, public_key=command.public_key)]


JOIN_TOKEN = Decider(JoinTokenState(), decide, evolve)
