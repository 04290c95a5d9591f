"""The state of one placement: its operations and the module's desired state. `projections.nodes` stores it as JSON.

The field names and their order are stored too: do not change them.
"""

from dataclasses import dataclass

from rollout.domain.placement.desired_state import desired_after
from rollout.domain.placement.events import Intent, Target
from rollout.messages import Phase, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Intent):
    """One operation, with its newest attempt.

    `before`: what the node had at the first release, None until then. `was`: the desired state at that time.
    `released`: the node was asked, in this attempt. `answers`: how the attempt ended, and what the node reported after
    that: phases, each with True for a success. `answered`: the node has reported an end of the attempt. `succeeded`: the
    node is as the operation was to leave it. `releases`: how often this attempt was released.
    `returned`: the newest of these releases that the agent has returned. `noted`: what happened in the attempt and was
    recorded.
    """

    before: tuple[Target, ...] | None = None
    was: tuple[Target, ...] = ()
    phase: Phase = Phase.SCHEDULED
    released: bool = False
    answers: tuple[tuple[Phase, bool], ...] = ()
    answered: bool = False
    succeeded: bool = False
    releases: int = 0
    returned: int = 0
    noted: tuple[Reason, ...] = ()

    @property
    def result(self) -> tuple[Target, ...]:
        """What the node has after a success. Only for an operation that was released."""
        before = self.before or ()
        return before if self.fails_back_to else desired_after(before, self)

    @property
    def changes_nothing(self) -> bool:
        """Return True if a success leaves the node as it was. Only for an operation that was released."""
        return self.result == self.before

    @property
    def may_still_change(self) -> bool:
        """Return True if the operation has ended without a report, so that the node may still carry it out."""
        return not (self.answered or self.before is None or self.changes_nothing)

    @property
    def changes(self) -> frozenset[int]:
        """The versions that the operation is about. Only for an operation that was released."""
        differing = {each.version for each in {*self.was} ^ {*self.result}}
        own = {self.version} if self.undoes is None else {self.version, self.undoes}
        return frozenset(differing | own)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementState:
    """One module on one node.

    `live`: the operation that has not ended; `waiting`: a newer one that is scheduled behind it. `ended`: the newest
    operation that has ended; `changed`: the newest of those that were released. `rejections`: the reports that were
    rejected since an operation was last scheduled, as rollout, generation, attempt and phase. `desired`: the versions of
    the module that the node should have; at most one is loaded. `had`: what the last success left, None before the first.
    `brought`: the newest successes that were not rolled back, the newest last; what the node has is the result of the last.
    """

    generation: int = 0
    live: Operation | None = None
    waiting: Operation | None = None
    ended: Operation | None = None
    rejections: tuple[tuple[str, int, int, Phase], ...] = ()
    desired: tuple[Target, ...] = ()
    had: tuple[Target, ...] | None = None
    changed: Operation | None = None
    brought: tuple[Operation, ...] = ()

    @property
    def at_work(self) -> frozenset[int]:
        """The versions that the operation in progress is about."""
        live = self.live
        return frozenset() if live is None or live.before is None or live.fails_back_to else live.changes

    @property
    def undone(self) -> bool:
        """Return True if the newest operation that was released has ended without success."""
        return self.changed is not None and not self.changed.succeeded

    @property
    def failed(self) -> int | None:
        """The version of the newest operation that was released, if it has failed."""
        changed = self.changed
        if changed is None or changed.succeeded or changed.phase not in {Phase.FAILED, Phase.TIMED_OUT}:
            return None
        return changed.version
