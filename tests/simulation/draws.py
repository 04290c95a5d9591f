"""What is drawn for a random run: strategies, requests, servers, and what nodes do."""

from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Any

from rollout.domain.retries import Retries
from rollout.domain.strategy import Gate, Offline, OnAbort, OnFailure, Strategy
from rollout.messages import Activation, Phase, Reason, Way, WayBackResult, Ways
from tests.simulation.clock import EPOCH
from tests.simulation.control_plane import ZONE
from tests.simulation.orders import Deed, Order, Script, Trouble
from tests.simulation.servers import Traits

AMOUNTS = (0, 1, 1, 2, 3, "10%", "25%", "50%", "100%")
REASONS = (Reason.LOAD_FAILED, Reason.FETCH_FAILED, Reason.SERVER_UNREACHABLE, Reason.DISK_FULL)
PHASES = (Phase.FETCHING, Phase.VERIFYING, Phase.INSTALLING, Phase.LOADING, Phase.PROBING)
#: Windows that are open now, open in a minute, and close for three minutes: the clock begins at midnight on a Thursday.
WINDOWS = ("Thu 00:00-06:00 UTC", "00:01-23:00 UTC", "00:05-00:02 UTC")
VERSIONS = (1, 2, 3, 9)


def strategy(chance: Random, *, has_zones: bool) -> Strategy:
    some = chance.random
    return Strategy(
        canary=chance.choice(AMOUNTS),
        waves=tuple(chance.choice(AMOUNTS) for _ in range(chance.randrange(4))),
        max_parallel=chance.choice((1, 2, 3, 10, "20%", "50%", "100%")),
        min_healthy=chance.choice((0, 0, 1, 2, "25%", "50%", "80%")),
        max_failures=chance.choice((0, 0, 1, 2, "10%", "34%", "100%")),
        on_failure=chance.choice(tuple(OnFailure)),
        on_abort=chance.choice(tuple(OnAbort)),
        soak_seconds=chance.choice((0.0, 0.0, 10.0, 60.0)),
        gate=Gate.MANUAL if some() < 0.2 else Gate.NONE,
        node_deadline_seconds=chance.choice((20.0, 60.0, 300.0)),
        progress_deadline_seconds=chance.choice((45.0, 200.0, 600.0)),
        retries=Retries(limit=chance.randrange(4), backoff_seconds=chance.choice((0.0, 1.0, 5.0))),
        offline=chance.choice(tuple(Offline)),
        start_at=None if some() < 0.8 else EPOCH + timedelta(seconds=chance.uniform(0, 120)),
        approval=some() < 0.1,
        ready_deadline_seconds=chance.choice((60.0, 300.0, 3600.0)),
        domain=ZONE if has_zones and some() < 0.7 else "",
        window=chance.choice(WINDOWS) if some() < 0.1 else "",
    )


def request(chance: Random) -> dict[str, Any]:
    """Return how a rollout may change servers that load some versions by a restart only."""
    return {
        "activation": Activation.FILES if chance.random() < 0.05 else Activation.LOAD,
        "ways": chance.choice((Ways.AUTO, Ways.AUTO, Ways.AUTO, Ways.RESTART, Ways.RESTART, Ways.RESTART, Ways.LOAD)),
        "may_interrupt": chance.random() < 0.7,
        "may_discard_data": chance.random() < 0.3,
    }


def traits(chance: Random) -> Traits:
    return Traits(
        is_stock=chance.random() < 0.5,
        keeps=chance.choice(("aof", "aof", "save", "")),
        min_replicas=chance.choice((0, 0, 0, 0, 0, 1, 1, 2)),
        restart="none" if chance.random() < 0.04 else chance.choice(("shutdown", "command")),
        keeps_role=chance.random() < 0.95,
        failover=chance.choice(("none", "command", "command")),
    )


@dataclass(frozen=True, slots=True)
class Luck:
    """What nodes do: with `bad` as the likelihood of each kind of trouble."""

    bad: float

    def __call__(self, chance: Random, order: Order) -> Script:
        script = self._drawn(chance)
        if order.way == Way.LOAD:
            return script
        return replace(
            script,
            dies_at=chance.choice((0.2, 3.0, 10.0, 30.0)),
            before_seconds=chance.choice((0.0, 0.0, 5.0, 40.0)),
            down_seconds=chance.choice((0.5, 5.0, 30.0)),
            load_seconds=chance.choice((0.0, 3.0, 60.0)),
            trouble=chance.choice(tuple(Trouble)),
            switch_seconds=chance.choice((0.1, 1.0, 4.0, 60.0)),
            way_back=chance.choice((*[WayBackResult.OPEN] * 6, WayBackResult.CLOSED, WayBackResult.UNKNOWN)),
        )

    def _drawn(self, chance: Random) -> Script:
        said = chance.choice(((), PHASES[:1], (PHASES[0], PHASES[3]), PHASES[1::-1]))
        seconds, luck = chance.uniform(0.5, 15.0), chance.random()
        obeys, checks_at = chance.random() < 0.7, chance.choice((0.01, 0.3, 0.8))
        if luck < self.bad:
            deed = chance.choice((Deed.HANG, Deed.LATE, Deed.DIE))
            seconds = chance.choice((3.0, 30.0, 200.0))
            return Script(deed=deed, seconds=seconds, said=said, obeys_cancel=obeys, checks_at=checks_at)
        if luck < 2 * self.bad:
            return Script(
                seconds=seconds,
                phase=Phase.FAILED,
                reason=chance.choice(REASONS),
                said=said,
                obeys_cancel=obeys,
                checks_at=checks_at,
            )
        return Script(seconds=seconds, said=said, obeys_cancel=obeys, checks_at=checks_at)
