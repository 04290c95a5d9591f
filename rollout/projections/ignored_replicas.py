"""Replicas that a person has accepted although they are no nodes."""

from collections.abc import Sequence

from eventstore import RecordedEvent
from rollout.domain.fleet.events import ReplicaIgnored, ReplicaUnignored
from rollout.models import IgnoredReplica
from rollout.projections.rows import save


class IgnoredReplicaProjection:
    name = "ignored_replicas"
    version = 1
    handles = (ReplicaIgnored, ReplicaUnignored)
    tables = (IgnoredReplica,)

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        rows = {each.event.address: _row(each) for each in batch}
        ignored = [row for row in rows.values() if row is not None]
        IgnoredReplica.objects.filter(address__in=rows.keys() - {row.address for row in ignored}).delete()
        save(IgnoredReplica, ignored)


def _row(recorded: RecordedEvent) -> IgnoredReplica | None:
    match recorded.event:
        case ReplicaIgnored(address=address, reason=reason):
            return IgnoredReplica(
                address=address,
                reason=reason,
                actor=recorded.shown_actor,
                ignored_at=recorded.recorded_at,
                position=recorded.position,
            )
        case _:
            return None
