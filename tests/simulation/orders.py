"""Commands as they travel to a node, and what its agent does with them."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from rollout.messages import Action, Activation, Phase, Reason, Replication, Report, Way, WayBackResult


class Deed(StrEnum):
    """`HANG` never ends by itself, `LATE` ends after its deadline, `DIE` stops the agent for `seconds` while it works,
    and the command with it."""

    END = "end"
    HANG = "hang"
    LATE = "late"
    DIE = "die"


class Trouble(StrEnum):
    """Where a restart fails that fails: before all, in the command before it, at the start with the new version, or in the
    probe."""

    FETCH = "fetch"
    BEFORE = "before"
    START = "start"
    PROBE = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What becomes of one command on one node. `said`: phases reported on the way. `checks_at`: the share of the seconds
    after which the agent checks its server, before it changes it. `dies_at`: how long after the begin, seconds.

    Of a restart: the seconds of the command before it, of the time without a process, and of the load of the data; and `trouble`,
    which counts if the phase is `failed`; what the node shows of the way back, if it had another version; and how long the role of a master needs to move."""

    deed: Deed = Deed.END
    seconds: float = 5.0
    phase: Phase = Phase.SUCCEEDED
    reason: Reason | None = None
    said: tuple[Phase, ...] = (Phase.FETCHING, Phase.LOADING)
    obeys_cancel: bool = True
    checks_at: float = 0.3
    dies_at: float = 0.2
    before_seconds: float = 0.0
    down_seconds: float = 1.0
    load_seconds: float = 0.0
    trouble: Trouble = Trouble.PROBE
    way_back: WayBackResult = WayBackResult.OPEN
    switch_seconds: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A command as it travels. The agent drops it if it arrives after `expires`. `ignored`: the replicas that people had
    accepted at the release."""

    rollout: str
    node: str
    module_name: str
    version: int
    action: Action
    activation: Activation
    content_sha256: str
    generation: int
    attempt: int
    undoes: int | None
    deadline_seconds: float
    sent_at: datetime = field(compare=False)
    expires: datetime = field(compare=False)
    release: int = 0
    released_at: datetime = field(compare=False)
    ignored: frozenset[str] = field(compare=False)
    expects: Replication | None = field(default=None, compare=False)
    way: Way = Way.LOAD
    may_discard_data: bool = False

    @property
    def number(self) -> tuple[int, int]:
        return self.generation, self.attempt

    @property
    def changes_server(self) -> bool:
        return self.is_loading or self.action == Action.REMOVE or self.undoes is not None

    @property
    def is_loading(self) -> bool:
        return self.action == Action.INSTALL and self.activation == Activation.LOAD

    def is_same(self, other: "Order | None") -> bool:
        """Return True if the other is a release of the same attempt."""
        return other is not None and (self.rollout, *self.number) == (other.rollout, *other.number)


#: Digest, and whether it is loaded, by module and version.
Disk = dict[tuple[str, int], tuple[str, bool]]


@dataclass(slots=True)
class Held:
    """A restart in progress, which the agent keeps on its disk. `run_id`: of the process before it. `former`: what was on the disk.

    `failover`: the replica that becomes the master first, and `failed_over`: it has. `is_stopped`: the agent has ended the process,
    or was about to. `is_back`: the line of the server names the former version.
    """

    order: Order
    run_id: str
    former: Disk
    trouble: Trouble | None
    failover: str = ""
    failed_over: bool = False
    is_stopped: bool = False
    is_back: bool = False
    way_back: WayBackResult | None = None


@dataclass(slots=True)
class Entry:
    """`failure`: why a restart is taken back. `is_left`: the restart could not be taken back, so the node is not in service."""

    order: Order
    report: Report | None = None
    failure: Reason | None = None
    is_left: bool = False

    @property
    def is_returned(self) -> bool:
        return self.report is not None and self.report.phase == Phase.SCHEDULED


def report_of(order: Order, phase: Phase, reason: Reason | None = None) -> Report:
    return Report(
        rollout=order.rollout,
        node=order.node,
        module_name=order.module_name,
        generation=order.generation,
        attempt=order.attempt,
        phase=phase,
        reason=reason,
        release=order.release,
    )
