"""A whole fleet under a virtual clock: no database, no broker, no waiting.

The deciders and the step are those of the control plane, and so are the folds that make its rows. What is played here is
what carries them: the log, the relay, the clock's work, the verbs, the wire to the nodes. All chance comes from one
seeded `Random`, so that a seed replays a run exactly.
"""

import uuid
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from rollout.domain.errors import NothingToRollBackError, OperationFinalError, RolloutError
from rollout.domain.fleet.decider import FLEET, FleetCommand
from rollout.domain.fleet.events import FLEET_STREAM
from rollout.domain.fleet.freeze import Freeze, Thaw
from rollout.domain.fleet.ignored_replicas import IgnoreReplica, UnignoreReplica
from rollout.domain.node.state import NodePhase
from rollout.domain.placement.commands import (
    Cancel,
    Retry,
    RollBack,
    Schedule,
)
from rollout.domain.placement.events import OperationScheduled
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.commands import Resume, RetryNodes, RollBackAll, RolloutCommand, Start
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import Origin, RolloutPhase, RolloutStarted, rollout_stream
from rollout.domain.rollout.rollback import ROLLED_BACK_BY_A_NEW_ROLLOUT
from rollout.domain.rollout.state import RolloutState
from rollout.domain.strategy import Strategy, rounded_up
from rollout.messages import (
    FINAL_PHASES,
    Action,
    Activation,
    Phase,
    Reason,
    Way,
    Ways,
)
from rollout.planning.shards import ShardOrder, refuse_without_domain
from rollout.planning.waves import canary_first
from rollout.services.rollback import ROLLBACKS
from rollout.services.start import without_start_conditions
from tests.simulation.control_plane import MODULE, Change
from tests.simulation.nodes import Nodes
from tests.simulation.planning import restarts_of
from tests.simulation.snapshot import PlanFacts, restoration_of, snapshot_of

Answer = TypeVar("Answer")


class World(Nodes):
    """The whole: what people do."""

    def __init__(self, seed: int = 0, *, nodes: int = 3, **more: Any) -> None:
        super().__init__(seed, **more)
        for number in range(nodes):
            self.join(f"n{number:03d}")

    # --- What people do

    def start(
        self,
        strategy: Strategy | None = None,
        *,
        version: int = 1,
        action: Action = Action.INSTALL,
        supersede: bool = False,
        nodes: Iterable[str] | None = None,
        activation: Activation = Activation.LOAD,
        ways: Ways = Ways.LOAD,
        may_interrupt: bool = False,
        may_discard_data: bool = False,
        origin: Origin = Origin.API,
        **more: Any,
    ) -> str:
        """The uid of a new rollout of greet. Raises: `RolloutError`."""
        uid = uuid.UUID(int=self.chance.getrandbits(128)).hex
        strategy = strategy or Strategy()
        known = {name: self.rows.nodes[name] for name in sorted(nodes or self.rows.nodes)}
        chosen = [row for row in known.values() if row.phase != NodePhase.DECOMMISSIONED]
        chosen.sort(key=lambda row: row.phase != NodePhase.ONLINE)  # the canary is one that is there
        skips = {row.name: (Reason.NODE_DRAINING, "") for row in chosen if row.draining}
        request = RolloutRequest(
            action=action,
            module_name=MODULE,
            version=version,
            activation=activation,
            strategy=strategy,
            ways=ways,
            may_interrupt=may_interrupt,
            may_discard_data=may_discard_data,
        )
        restarts = restarts_of(request, [row.name for row in chosen if row.name not in skips], self)
        skips |= restarts.skips
        order = ShardOrder(
            request, [row for row in chosen if row.name not in skips], PlanFacts(self.rows), restarts.planned
        )
        skips |= order.skips()
        included = [row for row in chosen if row.name not in skips]
        refuse_without_domain(strategy.domain, included)
        canary = rounded_up(strategy.canary, len(included))
        order = ShardOrder(request, included, PlanFacts(self.rows), restarts.planned)
        ordered = canary_first(included, canary, unchanged=dict.fromkeys(known), order=order)
        names = [*(row.name for row in ordered), *sorted(skips)]
        sizes = strategy.wave_sizes(len(included))
        waves = iter([wave for wave, size in enumerate(sizes) for _ in range(size)])
        schedules = [
            Schedule(
                rollout=uid,
                node=name,
                module_name=MODULE,
                version=version,
                action=action,
                activation=activation,
                content_sha256=f"c{version}" if action == Action.INSTALL else "",
                ordinal=ordinal,
                wave=-1 if name in skips else next(waves),
                supersede=supersede,
                yields=origin == Origin.RECONCILER,
                way=Way.RESTART if name in restarts.planned else Way.LOAD,
                skip=skips.get(name),
            )
            for ordinal, name in enumerate(names)
        ]
        started = RolloutStarted(
            rollout=uid,
            action=action,
            module_name=MODULE,
            version=version,
            activation=activation,
            total=len(names),
            waves=sizes,
            named=nodes is not None,
            strategy=strategy,
            origin=origin,
            ways=ways,
            may_interrupt=may_interrupt,
            may_discard_data=may_discard_data,
            **more,
        )
        self._begin(uid, started, self._decided(schedules))
        return uid

    def _begin(self, uid: str, started: RolloutStarted, changes: Iterable[Change]) -> None:
        new = ROLLOUT.decide(RolloutState(), Start(started=started))
        self.record([*((rollout_stream(uid), event) for event in new), *changes])
        self.uids.append(uid)
        self.advance(uid)

    def obey(self, uid: str, command: RolloutCommand) -> None:
        self.record(self._command_rollout(uid, command))
        self.advance(uid)

    def resume(self, uid: str) -> None:
        fleet = snapshot_of(uid, self.rollouts[uid], self.rows, now=self.now)
        self.obey(uid, Resume(rollout=uid, bad=tuple(each.bad for each in fleet.waves)))

    def roll_back(self, uid: str) -> str:
        self.advance(uid)
        state = self.rollouts[uid]
        self.obey(uid, RollBackAll(rollout=uid))
        if state.phase not in ROLLED_BACK_BY_A_NEW_ROLLOUT:
            return uid
        into = uuid.uuid5(ROLLBACKS, uid).hex
        if into not in self.rollouts:
            self._start_rollback(self.started(uid), into)
        return into

    def _start_rollback(self, ended: RolloutStarted, into: str) -> None:
        restored = restoration_of(ended.rollout, self.rows)
        changes = self._decided(
            RollBack(rollout=ended.rollout, node=node, module_name=MODULE, into=into) for node in restored.nodes
        )
        if not changes:
            raise NothingToRollBackError
        waves = [event.wave for _, event in changes if isinstance(event, OperationScheduled)]
        started = RolloutStarted(
            rollout=into,
            action=Action.REMOVE if ended.action == Action.INSTALL else Action.INSTALL,
            module_name=MODULE,
            version=ended.version,
            activation=ended.activation,
            total=len(waves),
            waves=tuple(waves.count(wave) for wave in range(max(waves) + 1)),
            named=True,
            strategy=without_start_conditions(ended.strategy),
            rollback_of=ended.rollout,
            left_alone=restored.unchanged,
            may_interrupt=ended.may_interrupt,
            may_discard_data=ended.may_discard_data,
        )
        self._begin(into, started, changes)

    def retry(self, uid: str) -> str:
        state = self.rollouts[uid]
        failed = tuple(
            row.node
            for row in self.rows.of(uid)
            if row.phase in {Phase.FAILED, Phase.TIMED_OUT} and self.rows.phase(row) != NodePhase.DECOMMISSIONED
        )
        ROLLOUT.decide(state, RetryNodes(rollout=uid, nodes=failed))
        if state.phase.is_final:
            started = self.started(uid)
            return self.start(
                without_start_conditions(started.strategy),
                version=started.version,
                action=started.action,
                nodes=failed,
                retry_of=uid,
                activation=started.activation,
                ways=started.ways,
                may_interrupt=started.may_interrupt,
                may_discard_data=started.may_discard_data,
            )
        retries = self._decided([Retry(rollout=uid, node=node, module_name=MODULE) for node in failed])
        retried = tuple(event.node for _, event in retries if isinstance(event, OperationScheduled))
        events = self._command_rollout(uid, RetryNodes(rollout=uid, nodes=retried))
        self.record([*events, *retries])
        self.advance(uid)
        return uid

    def cancel(self, uid: str, name: str, *, force: bool = False) -> None:
        phase = self.known_operation(uid, name).phase
        if phase in FINAL_PHASES and phase != Phase.CANCELED:
            raise OperationFinalError(name)
        self.record(self._decided([Cancel(rollout=uid, node=name, module_name=MODULE, force=force)]))
        self.advance(uid)

    def freeze(self) -> None:
        self.record((FLEET_STREAM, event) for event in FLEET.decide(self.fleet, Freeze(reason="night")))

    def thaw(self) -> None:
        self.record((FLEET_STREAM, event) for event in FLEET.decide(self.fleet, Thaw()))
        self.advance_all()

    def ignore(self, address: str) -> None:
        """Accept a replica without an agent."""
        self._decide_on_fleet(IgnoreReplica(address=address, reason="it only reads"))

    def unignore(self, address: str) -> None:
        self._decide_on_fleet(UnignoreReplica(address=address))

    def _decide_on_fleet(self, command: FleetCommand) -> None:
        self.record((FLEET_STREAM, event) for event in FLEET.decide(self.fleet, command))
        self._place_members()
        self.advance_all()

    def tried(self, function: Callable[..., Answer], *args: Any, **more: Any) -> Answer | None:
        """What the function answers, None if it is refused."""
        try:
            return function(*args, **more)
        except RolloutError:
            return None

    def phase(self, uid: str) -> RolloutPhase:
        return self.rollouts[uid].phase

    def phases(self, uid: str) -> dict[str, str]:
        return {row.node: str(row.phase) for row in self.rows.of(uid)}

    def events(self, uid: str) -> list[str]:
        """Names of the rollout's own events."""
        return [type(each.event).__name__ for each in self.log if each.stream == rollout_stream(uid)]
