"""Follows the database's clock when it was set back, so that no wait lasts until the clock has caught up."""

import logging

from django.db import transaction
from django.db.models import Model

from eventstore import acting_as, database_now, follow_clock, retry_on_conflict
from rollout.models import Liveness, NodeFacts, ShardMember
from rollout.process.timeouts import CLOCK
from rollout.projections.rows import times_of

logger = logging.getLogger(__name__)

#: What is not made from the log. Leases and webhooks are not here: a wait there that seems too long ends at once.
_OUTSIDE_THE_LOG: tuple[type[Model], ...] = (Liveness, NodeFacts, ShardMember)


@retry_on_conflict
def follow() -> None:
    """If the database's clock was set back, record that, and let no time that is kept be in the future. One look otherwise."""
    with transaction.atomic(), acting_as(CLOCK):
        if not follow_clock():
            return
        now = database_now()
        for table in _OUTSIDE_THE_LOG:
            for name in times_of(table):  # not whole rows: heartbeats change them meanwhile
                table._default_manager.filter(**{f"{name}__gt": now}).update(**{name: now})  # noqa: SLF001  # public
    logger.warning("The database's clock was set back; times of the log follow it again")
