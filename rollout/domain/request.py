"""What a rollout is asked to do."""

from dataclasses import dataclass, field, replace

from rollout.domain.rollout.events import Origin
from rollout.domain.selector import Selector
from rollout.domain.strategy import Offline, OnFailure, Strategy
from rollout.messages import Action, Activation

#: For calls that know no strategies: one node that fails neither pauses nor stops the others, and a rollout in which
#: nothing succeeds for too long ends. It never waits for a person.
AT_ONCE = Strategy(canary=0, max_failures="100%", on_failure=OnFailure.ABORT)
#: For the vendor's calls, whose clients poll for the end: nodes that are offline are skipped, and get it when they are back.
WHERE_ONLINE = replace(AT_ONCE, offline=Offline.SKIP)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """`nodes` and `selector` None: all of the fleet, which only with `may_be_empty` may have none.
    `plan_hash`: start only what this plan has shown.
    `purge`: delete module object and artifact once every node has succeeded.
    `undoes`: the version that is to be gone too. `yields`: any request of a person takes its place.
    `is_needed`: it brings a module that another rollout needs."""

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

    @property
    def named(self) -> bool:
        """Whether its nodes were chosen."""
        return self.nodes is not None or self.selector is not None
