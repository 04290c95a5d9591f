"""A request to start a rollout."""

from dataclasses import dataclass, field, replace

from rollout.domain.rollout.events import Origin
from rollout.domain.selector import Selector
from rollout.domain.strategy import Offline, OnFailure, Strategy
from rollout.messages import Action, Activation, Ways

#: The strategy of calls that take none. A failed node does not stop the others. A rollout without a success for too long
#: ends. It never waits for a person.
AT_ONCE = Strategy(canary=0, max_failures="100%", on_failure=OnFailure.ABORT)
#: The strategy of the vendor's routes, whose clients poll for the end. Nodes that are offline are skipped, and the
#: reconciler installs the module when they are back.
WHERE_ONLINE = replace(AT_ONCE, offline=Offline.SKIP)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """What to do on which nodes.

    Without `nodes` and `selector`: all nodes of the fleet. `may_be_empty`: a fleet without nodes is no error then.
    `supersede`: cancel older operations that have not started, and wait for those that have. `plan_hash`: start only if
    the plan is still the one with this hash. `retry_of`: the finished rollout whose failed nodes are retried. `purge`:
    delete the module object and the artifact after all nodes have succeeded. `undoes`: a version that is removed in
    addition. `yields`: the reconciler asks, so any request of a person supersedes it. `is_needed`: another rollout needs
    the module. `even_if_used`: remove the module even if its commands were called in the last 10 minutes. `adopt`:
    take over the module where the server has loaded the same file already, from a path that is not Modfleet's.

    `ways`: how servers may come to load the version. `may_interrupt`: a server may be restarted although its clients have no
    other one. `may_discard_data`: also if its data is neither on disk nor on a replica. `failback`: masters that gave their role away
    get it back afterwards.
    """

    action: Action
    module_name: str
    version: int
    activation: Activation = Activation.LOAD
    nodes: tuple[str, ...] | None = None
    selector: Selector | None = None
    strategy: Strategy = field(default_factory=Strategy)
    supersede: bool = False
    plan_hash: str = ""
    origin: Origin = Origin.API
    retry_of: str = ""
    may_be_empty: bool = False
    purge: bool = False
    undoes: int | None = None
    yields: bool = False
    is_needed: bool = False
    even_if_used: bool = False
    adopt: bool = False
    ways: Ways = Ways.LOAD
    may_interrupt: bool = False
    may_discard_data: bool = False
    failback: bool = False

    @property
    def named(self) -> bool:
        """Return True if the nodes were chosen, by name or by a selector."""
        return self.nodes is not None or self.selector is not None
