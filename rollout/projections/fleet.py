"""The freeze of the fleet, and who froze it."""

from collections.abc import Sequence

from eventstore import ClockSetBack, RecordedEvent
from rollout.domain.fleet.events import FleetFrozen, FleetThawed
from rollout.models import FleetFreeze
from rollout.projections.rows import no_later_than, save


class FleetProjection:
    name = "fleet"
    version = 2
    handles = (FleetFrozen, FleetThawed, ClockSetBack)
    tables = (FleetFreeze,)

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        row = FleetFreeze.objects.filter(id=1).first()
        for each in batch:
            match each.event:
                case FleetFrozen(reason=reason):
                    row = FleetFreeze(frozen=True, reason=reason, actor=each.shown_actor, frozen_at=each.recorded_at)
                case FleetThawed() if row is not None:
                    row.frozen, row.thawed_at = False, each.recorded_at
                case ClockSetBack() if row is not None:
                    no_later_than(row, each.recorded_at)
                    continue
            if row is not None:
                row.position, row.event_id = each.position, each.event_id
        if row is not None:
            save(FleetFreeze, [row])  # its key has a default, so that Django's own `save` would insert a second one
