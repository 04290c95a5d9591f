"""What explanations are made from, and what they consist of."""

from dataclasses import dataclass
from datetime import datetime

from rollout.domain.explanation.rules import Rule
from rollout.domain.node.state import NodePhase
from rollout.domain.words import some_of
from rollout.messages import Phase, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """A group of a rollout's nodes: its size, and the first names. `until`: when the wait for the group ends, if known."""

    count: int = 0
    names: tuple[str, ...] = ()
    until: datetime | None = None

    def __str__(self) -> str:
        return some_of(self.names, self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFacts:
    """What an explanation says of a rollout in addition to its rules. Texts are sentences or parts of one.

    `since`: when the rollout entered its phase. `actor`: who last asked for a stop, such as a pause or an abort.
    `before`: earlier stops and what people did. `failed`: what the first failed attempts reported, also of nodes that were
    retried or restored, and which operations were superseded. `related`: rollouts that retry it or roll it back, or that
    it retries or rolls back, and nodes that its rollback leaves unchanged.

    `in_progress`: nodes that were released. `silent`: those of them that are offline. The other groups are of scheduled
    nodes that may be released: offline, degraded, draining, behind an older operation, waiting for a retry, or retried and
    not released yet. `needs`: rollouts that must succeed first. `frozen`: who froze the fleet, and why.
    """

    since: datetime
    actor: str
    before: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    related: tuple[str, ...] = ()
    in_progress: Nodes = Nodes()
    silent: Nodes = Nodes()
    offline: Nodes = Nodes()
    degraded: Nodes = Nodes()
    draining: Nodes = Nodes()
    behind: Nodes = Nodes()
    backing_off: Nodes = Nodes()
    retried: Nodes = Nodes()
    needs: tuple[str, ...] = ()
    frozen: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One node of a rollout. `since`: when its operation entered its phase. `behind`: the rollout whose older operation
    must end first, or empty. `ready_at`: when the wait before a retry ends. `touched`: the operation was released.
    `node_problem`: why the node is
    degraded. `canceled_by`: the person who canceled the operation, or whose newer rollout superseded it. `drift_reason`:
    why the module has drifted since, if that is known."""

    name: str
    node_phase: NodePhase
    wave: int
    phase: Phase
    since: datetime
    node_problem: str = ""
    reason: Reason | None = None
    message: str = ""
    behind: str = ""
    ready_at: datetime | None = None
    deadline_at: datetime | None = None
    touched: bool = False
    canceled_by: str = ""
    drift_reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One thing that is waited for. `text` completes "It waits for". `until`: the end of the wait, if known."""

    what: Rule
    text: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """An explanation. `rule` decided; `rule_text` is its sentence with the rollout's numbers."""

    rule: Rule
    rule_text: str
    summary: str
    waits_for: tuple[Wait, ...] = ()
