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
    def unloads(self) -> int | None:
        """The version that the operation unloads without a replacement if it is loaded, None if there is none."""
        intent = self.intent
        if intent.action == Action.REMOVE:
            return intent.version
        return intent.undoes if intent.activation == Activation.FILES else None

    @property
    def place(self) -> Place:
        return self.node, self.intent.module_name
