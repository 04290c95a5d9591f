"""Plans: what exactly a rollout would do. Knows no Django."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec

from rollout.domain.request import RolloutRequest
from rollout.messages import Reason, Way


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRestart:
    """`away_seconds`: for how long it is expected to stop the server. `failover`: how its replica becomes the master before:
    `sentinel`, `command` or `cluster`; empty if that is not needed. `full_sync_expected`: afterwards, it gets all data of its
    master."""

    away_seconds: float
    failover: str = ""
    full_sync_expected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedNode:
    """`content_sha256`: of the build, empty for a removal. `size`: bytes to transfer. `expected`: why nothing is expected
    to change, by the last heartbeat; the node is asked in any case. `shard`: the name of its shard if it shares its data
    with another server, else empty. `role`: `master` or `replica` then. `way`: how its server comes to load
    or unload the version. `restart`: None if it is not restarted."""

    name: str
    wave: int
    content_sha256: str
    size: int
    expected: Reason | None
    shard: str = ""
    role: str = ""
    way: Way = Way.LOAD
    restart: PlannedRestart | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedNode:
    name: str
    content_sha256: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanWarning:
    """Why a node may not be able to use the module. It is in the plan all the same."""

    name: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LostOptions:
    """The options that the build of a node has now, and that its new build does not have."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`nodes`: by wave. `before`: plans of the modules that are needed, in the order in which they start; a plan without
    nodes gets no rollout. `needs`: the names of those that this one waits for. `joined`: rollouts in progress that bring
    the module to nodes that are not in this plan. `learned`: what scratch servers have shown about its builds, as JSON.
    `irreversible`: what no rollback undoes, in words."""

    request: RolloutRequest
    nodes: tuple[PlannedNode, ...]
    skipped: tuple[SkippedNode, ...]
    needs: tuple[str, ...] = ()
    before: tuple["Plan", ...] = ()
    joined: tuple[str, ...] = ()
    warnings: tuple[PlanWarning, ...] = ()
    learned: Mapping[str, Any] = field(default_factory=dict)
    lost_options: tuple[LostOptions, ...] = ()
    irreversible: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all its nodes, the skipped ones last."""
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
        """Return a SHA-256 in hex of what the plan does. Sizes, expectations, warnings and what was learned do not
        count. Lost options do: a person who starts the plan accepts them."""
        return hashlib.sha256(msgspec.json.encode(self._schedule(), order="sorted")).hexdigest()

    def _schedule(self) -> dict[str, Any]:
        request, strategy = self.request, self.request.strategy
        # The order of the reasons means nothing: a form sends them in its own.
        return {
            "action": request.action,
            "module_name": request.module_name,
            "version": request.version,
            "activation": request.activation,
            "named": request.named,
            "supersede": request.supersede,
            "even_if_used": request.even_if_used,
            "adopt": request.adopt,
            "ways": request.ways,
            "may_interrupt": request.may_interrupt,
            "may_discard_data": request.may_discard_data,
            "failback": request.failback,
            "strategy": replace(
                strategy, retries=replace(strategy.retries, reasons=tuple(sorted(strategy.retries.reasons)))
            ),
            "nodes": [
                (each.name, each.wave, each.content_sha256, each.way, each.restart.failover if each.restart else "")
                for each in self.nodes
            ],
            "skipped": [(each.name, each.reason) for each in self.skipped],
            "lost_options": [(each.name, each.options) for each in self.lost_options],
            "needs": self.needs,
            "before": [each._schedule() for each in self.before],  # noqa: SLF001  # another plan
            "joined": self.joined,
        }
