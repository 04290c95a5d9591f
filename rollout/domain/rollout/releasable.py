"""Which scheduled operations may be released, and what is recorded for those that have to wait."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain

from rollout.domain.rollout.turns import BUSY, Block, Blocked, Fleet, Place, Turn, blocked, together
from rollout.domain.strategy import Strategy
from rollout.domain.window import parse_window
from rollout.domain.words import counted
from rollout.messages import Reason

#: How often nodes are looked at again that wait for a heartbeat, or for operations of other rollouts, seconds.
POLL_SECONDS = 1.0
#: Waits that end with a heartbeat which changes no place, so it wakes no rollout: how often they are looked at again, seconds.
LOOK_AGAIN_SECONDS = {
    Block.HEARTBEAT: POLL_SECONDS,
    Block.RESTART: 10.0,
    Block.HOST_WORKS: 10.0,
    Block.SYNC_LOOP: 10.0,
}
#: A wait that lasts is recorded again, with its duration, after so many seconds.
NOTED_AGAIN_SECONDS = 600.0
#: A wait for another reason is recorded after so many seconds: a server may change its reason with each heartbeat.
CHANGED_SECONDS = 30.0
#: A wait that was not recorded for so long has ended in between, as in a frozen fleet, seconds.
WAIT_ENDED_SECONDS = 2 * NOTED_AGAIN_SECONDS
#: The pause after the second release that an agent has returned, and the longest one, seconds. They double in between.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 300.0
#: Blocked nodes that a snapshot names, and those that others wait for.
MOST_BLOCKED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A node that may be released. A node that has failed before is not healthy: its release does not lower the number
    of healthy nodes."""

    node: str
    is_healthy: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a scheduled node waits for, to be recorded with its operation."""

    node: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A scheduled operation on a node that is online. `turn`: None if it does not change the server.

    `reason`, `message`, `waiting_since` and `noted_at`: the wait that was last recorded, since when it lasts, and when it was
    recorded. `releases`: how often the attempt was released. `restarts`: it may restart the server, also if the newest heartbeat
    says that nothing is to do. `replaces`: a restart gives its server another version of the module than it has now.
    """

    node: str
    is_healthy: bool = True
    turn: Turn | None = None
    reason: str = ""
    message: str = ""
    waiting_since: datetime | None = None
    noted_at: datetime | None = None
    releases: int = 0
    restarts: bool = False
    replaces: bool = False


@dataclass(slots=True)
class Releasable:
    """The first `limit` candidates that may be released together at `now`, and what blocks those before them.

    `shows_way_back`: no node has shown yet if its former version can read what the new one writes, so the first one that
    `replaces` a version is released alone. `blocked`, `waits`, `unfit`, `is_waiting`: see `Snapshot`. `wake_at`: when to look again.
    """

    strategy: Strategy
    now: datetime
    limit: int
    shows_way_back: bool = False
    ready: list[Ready] = field(default_factory=list)
    blocked: list[Blocked] = field(default_factory=list)
    waits: list[Waiting] = field(default_factory=list)
    unfit: list[Waiting] = field(default_factory=list)
    is_waiting: bool = False
    wake_at: datetime | None = None
    _taken: list[tuple[str, Place]] = field(default_factory=list)
    _first_replaced: str = ""

    @property
    def is_full(self) -> bool:
        return len(self.ready) >= self.limit

    @property
    def come_first(self) -> set[str]:
        """Return the nodes for which blocked ones wait."""
        return set(chain.from_iterable(each.behind for each in self.blocked))

    def look_at(self, candidates: Iterable[Candidate], fleet: Fleet) -> None:
        """Sort the candidates into those that are ready and those that are blocked."""
        for each in candidates:
            if self.is_full:
                return
            if block := self._closed(each):
                self._note(each, block)
                continue
            if each.turn is not None:
                if block := blocked(each.turn, fleet) or self._returned(each, each.turn):
                    self._note(each, block)
                    continue
                if block := self._blocked_by_taken(each.node, fleet) or self._after_first(each):
                    self._show(block)
                    self._keep_waiting(each)
                    continue
                if each.replaces:
                    self._first_replaced = self._first_replaced or each.node
                self._taken.append((each.node, fleet.places[each.node]))
            self._keep_waiting(each)  # `min_healthy` may keep it back
            self.ready.append(Ready(node=each.node, is_healthy=each.is_healthy))

    def _blocked_by_taken(self, node: str, fleet: Fleet) -> Blocked | None:
        """Return what of the nodes that are ready keeps this one back: one copy of a shard, one node of a host, and one
        failure domain at a time."""
        place = fleet.places[node]
        for other, taken in self._taken:
            if block := together(place, taken):
                return Blocked(node=node, block=block, text=f"the operation on {other}, which comes first")
        return None

    def _after_first(self, candidate: Candidate) -> Blocked | None:
        """Return that another node comes first, to show if the former version can read what the new one writes."""
        if not (self.shows_way_back and candidate.replaces and self._first_replaced):
            return None
        text = f"{self._first_replaced} to show if the former version can read what the new one writes"
        return Blocked(node=candidate.node, block=Block.WAY_BACK, text=text)

    def _note(self, candidate: Candidate, block: Blocked) -> None:
        self._show(block)
        if block.reason is not None:
            self._note_reason(candidate, block, block.reason)
            if block.block in LOOK_AGAIN_SECONDS:
                self._wake(self.now + timedelta(seconds=LOOK_AGAIN_SECONDS[block.block]))
            return
        self._keep_waiting(candidate)
        self.is_waiting |= block.block in BUSY or block.until is not None
        if block.block != Block.SHARD_ORDER:  # an operation of the same rollout, whose end leads to the next step
            self._wake(block.until or self.now + timedelta(seconds=POLL_SECONDS))

    def _closed(self, candidate: Candidate) -> Blocked | None:
        """Return that the window for restarts has not opened yet."""
        window = self.strategy.window
        if not candidate.restarts or not window or (until := parse_window(window).opens_at(self.now)) is None:
            return None
        what = f"the server of {candidate.node} is restarted"
        if candidate.turn and (former := candidate.turn.fails_back_to):
            what = f"{former} becomes the master again"
        text = f"the window {window}, which opens at {until:%Y-%m-%d %H:%M} UTC: {what}"
        return Blocked(node=candidate.node, block=Block.WINDOW, text=text, until=until)

    def _returned(self, candidate: Candidate, turn: Turn) -> Blocked | None:
        """Return what keeps a node back whose agent has returned the operation, although its heartbeats say that the server
        is ready: a pause, and at last its deadline."""
        if turn.returned_at is None:
            return None
        node, since = candidate.node, candidate.waiting_since or turn.returned_at
        if turn.returned_at - since >= self._longest_wait:
            reason = Reason(candidate.reason or Reason.SERVER_NOT_READY)
            text = f"its server. The agent has returned each of {counted(candidate.releases, 'release')}: {candidate.message}"
            return Blocked(node=node, block=Block.SERVER, reason=reason, text=text.rstrip(" .:"))
        until = turn.returned_at + _pause(candidate.releases)
        if until <= self.now:
            return None
        text = f"the next release on {node}, because its agent has returned the last one: {candidate.message}".rstrip(
            " .:"
        )
        return Blocked(node=node, block=Block.SERVER, text=text, until=until)

    def _keep_waiting(self, candidate: Candidate) -> None:
        """Count a node that has waited for its server and now waits for others, as long as the first wait may last. Else
        the progress deadline would stop the rollout at once, or never."""
        if candidate.waiting_since is None:
            return
        until = candidate.waiting_since + self._longest_wait
        if until > self.now:
            self.is_waiting = True
            self._wake(until)

    def _show(self, block: Blocked) -> None:
        if len(self.blocked) < MOST_BLOCKED or block.behind:
            self.blocked.append(block)

    def _note_reason(self, candidate: Candidate, block: Blocked, reason: Reason) -> None:
        """Record the wait, or skip the node if its time is over or waiting does not help."""
        self.is_waiting = True
        since = waiting_since(candidate.waiting_since, candidate.noted_at, self.now)
        waited, deadline = self.now - since, self._longest_wait
        if block.is_unfit or waited >= deadline:
            lasting = "" if block.is_unfit else f" for {_minutes(waited)}"
            message = f"{candidate.node} waited{lasting} for {block.text}."
            self.unfit.append(Waiting(node=candidate.node, reason=reason, message=message))
            return
        if candidate.noted_at is not None:
            pause = NOTED_AGAIN_SECONDS if candidate.reason == reason else CHANGED_SECONDS
            again = candidate.noted_at + timedelta(seconds=pause)
            if again > self.now:
                self._wake(min(again, since + deadline))
                return
        lasting = f" It has waited for {_minutes(waited)}." if waited.total_seconds() >= NOTED_AGAIN_SECONDS else ""
        message = f"It waits for {block.text}.{lasting}"
        self.waits.append(Waiting(node=candidate.node, reason=reason, message=message))

    @property
    def _longest_wait(self) -> timedelta:
        return timedelta(seconds=self.strategy.ready_deadline_seconds)

    def _wake(self, at: datetime) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def waiting_since(since: datetime | None, noted_at: datetime | None, now: datetime) -> datetime:
    """Return since when a node waits that waits now. `since` and `noted_at`: of the wait that was last recorded.

    The wait counts over all reasons and releases. It begins again if it has not been recorded for a long time.
    """
    is_same = noted_at is not None and now - noted_at < timedelta(seconds=WAIT_ENDED_SECONDS)
    return since if since is not None and is_same else now


def _pause(releases: int) -> timedelta:
    """Return the time between the return of that many releases and the next one. The first return is often a failover."""
    if releases < 2:
        return timedelta()
    return timedelta(seconds=min(FIRST_PAUSE_SECONDS * 2 ** min(releases - 2, 10), LONGEST_PAUSE_SECONDS))


def _minutes(waited: timedelta) -> str:
    return counted(int(waited.total_seconds() // 60), "minute")
