"""What exactly a rollout would do: wave by node, who is skipped and why, what comes before. Knows no Django."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec

from rollout.domain.request import RolloutRequest
from rollout.messages import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedNode:
    """`content_sha256` is that of the build, empty for a removal. `size` is what has to be moved, in bytes.
    `expected`: why nothing will have to be done there, by what was last seen; the node is asked all the same."""

    name: str
    wave: int
    content_sha256: str
    size: int
    expected: Reason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedNode:
    name: str
    content_sha256: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`nodes` by wave. `before`: plans of modules that are needed, in the order in which they start; one without nodes
    has no rollout. `needs`: those of them that this one waits for, by name. `joined`: rollouts under way that bring
    the module to nodes that are not in this plan."""

    request: RolloutRequest
    nodes: tuple[PlannedNode, ...]
    skipped: tuple[SkippedNode, ...]
    needs: tuple[str, ...] = ()
    before: tuple["Plan", ...] = ()
    joined: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all its nodes, the skipped ones last."""
        return (*(each.name for each in self.nodes), *(each.name for each in self.skipped))

    @property
    def total(self) -> int:
        return len(self.nodes) + len(self.skipped)

    @property
    def wave_sizes(self) -> tuple[int, ...]:
        return self.request.strategy.wave_sizes(len(self.nodes))

    def waves(self) -> Iterator[tuple[PlannedNode, ...]]:
        return (tuple(nodes) for _, nodes in groupby(self.nodes, key=attrgetter("wave")))

    @property
    def hash(self) -> str:
        """SHA-256 in hex: the same for as long as the same would be done, whatever it is expected to cost."""
        return hashlib.sha256(msgspec.json.encode(self._schedule(), order="sorted")).hexdigest()

    def _schedule(self) -> dict[str, Any]:
        request = self.request
        return {
            "action": request.action,
            "module_name": request.module_name,
            "version": request.version,
            "activation": request.activation,
            "named": request.named,
            "supersede": request.supersede,
            "strategy": request.strategy,
            "nodes": [(each.name, each.wave, each.content_sha256) for each in self.nodes],
            "skipped": [(each.name, each.reason) for each in self.skipped],
            "needs": self.needs,
            "before": [each._schedule() for each in self.before],  # noqa: SLF001  # of its own kind
            "joined": self.joined,
        }
