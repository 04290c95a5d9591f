"""An operation that brings a node closer to its desired state."""

from dataclasses import dataclass

from rollout.messages import Action, Activation
from rollout.reconciliation.differences import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What nodes shall do; nodes with the same intent share a rollout."""

    action: Action
    module_name: str
    version: int
    activation: Activation
    undoes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededOperation:
    """An operation that brings one node closer to its desired state."""

    node: str
    platforms: tuple[str, ...]
    intent: Intent

    @property
    def place(self) -> Place:
        return self.node, self.intent.module_name
