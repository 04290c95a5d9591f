"""What a rollout is asked to do."""

from dataclasses import dataclass, field

from rollout.events import Origin
from rollout.messages import Action, Activation
from rollout.strategy import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """`nodes` None: all of the fleet, which only with `may_be_empty` may have none.
    `purge`: delete module object and artifact once every node has succeeded."""

    action: Action
    module_name: str
    version: int
    activation: Activation = Activation.LOAD
    nodes: tuple[str, ...] | None = None
    strategy: Strategy = field(default_factory=Strategy)
    supersede: bool = False
    origin: Origin = Origin.API
    retry_of: str = ""
    may_be_empty: bool = False
    purge: bool = False
