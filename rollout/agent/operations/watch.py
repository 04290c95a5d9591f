"""What one operation has seen of its server's health: before the load, and while the module settled."""

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace

from rollout.agent.scratch.start import StartResult
from rollout.agent.server.call_outcomes import CallOutcomes, outcomes_in
from rollout.agent.server.health import COUNTED, SAMPLED, Sample, sample_from, statistics_from
from rollout.agent.server.session import RefusedError, Session
from rollout.agent.server.texts import storable
from rollout.messages import Failover, ServerHealth, ServerStatistics

#: Two restarts within so many seconds are a crash.
LOOP_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class Watch:
    """`baseline`: the newest sample before the load. `last`: the newest sample of all. `before` and `after`: statistics.

    `loads`: how often MODULE LOAD was called when the module was loaded. `restarts`: when the server was seen restarted, by a
    monotonic clock. `remarks`: sentences for the report of a success. `seconds`: how long the module will settle. `outcomes`: of
    the calls before. `since`: when the operation began, by the monotonic clock.
    """

    seconds: float
    outcomes: CallOutcomes
    since: float = field(default_factory=time.monotonic)
    baseline: Sample | None = None
    last: Sample | None = None
    before: ServerStatistics | None = None
    after: ServerStatistics | None = None
    loads: int = 0
    restarts: list[float] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    #: Set as soon as a replica has become the master, whatever comes afterwards.
    failover: Failover | None = None
    #: If the server would not start without the operation: what a scratch server has shown for the start after it.
    repaired_start: StartResult | None = None

    def look_before(self, session: Session, module_name: str, commands: Collection[str]) -> None:
        """Read the statistics and take the baseline. `commands`: of the module, if the server does not list them."""
        self.baseline = sample(session)
        if self.before is None:
            self.before = self._recent(session, module_name, commands)

    def _recent(self, session: Session, module_name: str, commands: Collection[str]) -> ServerStatistics:
        """Return the statistics, with the calls of as long a time as the module will settle. UNLOAD deletes them."""
        names, info = _names(session, module_name, commands), session.info("server", *COUNTED)
        found = statistics_from(info, names)
        if not names:
            return found
        now = time.monotonic()
        self.outcomes.add(now, info.get("run_id", ""), outcomes_in(info, names))
        calls, failed = self.outcomes.since(now - self.seconds, names)
        return replace(found, calls=calls, failed_calls=failed)

    def look(self, session: Session) -> Sample:
        """Take a sample. Without a baseline, and after a restart, it is the baseline; but the link was up if it was before.

        After CONFIG RESETSTAT, the baseline of the errors is 0.
        """
        self.last = sample(session)
        if self.baseline is None:
            self.baseline = self.last
        elif self.baseline.run_id != self.last.run_id:
            self.baseline = replace(self.last, link_is_up=self.baseline.link_is_up)
        elif self.last.is_reset_since(self.baseline) and self.baseline.error_replies:
            self.baseline = replace(self.baseline, error_replies=0)
        return self.last

    def look_after(self, session: Session, module_name: str, commands: Collection[str]) -> None:
        self.after = statistics(session, module_name, commands)

    def note_restart(self) -> bool:
        """Note that the server was restarted. Return True if that makes two restarts within `LOOP_SECONDS`."""
        self.restarts.append(time.monotonic())
        return len(self.restarts) > 1 and self.restarts[-1] - self.restarts[-2] <= LOOP_SECONDS

    def health(self) -> ServerHealth | None:
        """Return what the report says, None if the server loaded nothing."""
        if self.before is None:
            return None
        return ServerHealth(
            before=self.before,
            after=self.after,
            restarts=len(self.restarts),
            run_id=storable(self.last.run_id)[:64] if self.last else "",
            unexpected_error_replies=self.last.error_replies if self.last else None,
        )


def sample(session: Session) -> Sample:
    return sample_from(session.info(*SAMPLED))


def statistics(session: Session, module_name: str, commands: Collection[str]) -> ServerStatistics:
    return statistics_from(session.info(*COUNTED), _names(session, module_name, commands))


def _names(session: Session, module_name: str, commands: Collection[str]) -> frozenset[str]:
    with suppress(RefusedError):
        commands = session.commands_of(module_name) or commands
    return frozenset(each.lower() for each in commands)
