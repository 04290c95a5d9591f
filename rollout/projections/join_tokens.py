"""Join tokens, and how often each was used."""

from collections.abc import Sequence

from eventstore import RecordedEvent
from rollout.domain.join_token.events import JoinTokenCreated, JoinTokenRevoked, JoinTokenUsed
from rollout.models import JoinToken
from rollout.projections.rows import load, save


class JoinTokenProjection:
    name = "join_tokens"
    version = 1
    handles = (JoinTokenCreated, JoinTokenUsed, JoinTokenRevoked)
    tables = (JoinToken,)

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        rows = load(JoinToken, (each.event.token for each in batch))
        for each in batch:
            match each.event:
                case JoinTokenCreated(token=token):
                    rows[token] = _created(each)
                case JoinTokenUsed(token=token):
                    rows[token].used += 1
                case JoinTokenRevoked(token=token):
                    rows[token].revoked_at = each.recorded_at
        save(JoinToken, rows.values())


def _created(recorded: RecordedEvent) -> JoinToken:
    event: JoinTokenCreated = recorded.event
    return JoinToken(
        id=event.token,
        node=event.node,
        pattern=event.pattern,
        uses=event.uses,
        labels=event.labels,
        expires_at=event.expires_at,
        auto_accept=event.auto_accept,
        observe=event.observe,
        created_by=recorded.shown_actor,
        created_at=recorded.recorded_at,
        created_position=recorded.position,
    )
