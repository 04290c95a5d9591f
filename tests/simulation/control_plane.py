"""The control plane without a database and a broker: the log, the relay, the clock's work, and the wire to the nodes."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

from msgspec import convert

from rollout.domain.node.commands import (
    NodeCommand,
    RecordInventory,
)
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import ABSENT, NodeDecommissioned, node_stream
from rollout.domain.node.health import Degradation
from rollout.domain.node.state import NodePhase
from rollout.domain.placement.commands import (
    End,
    PlacementCommand,
    RecordReport,
    RejectReport,
    Release,
)
from rollout.domain.placement.decider import PLACEMENT
from rollout.domain.placement.events import OperationReleased, Target, placement_stream
from rollout.domain.placement.state import PlacementState
from rollout.domain.rollout.commands import RolloutCommand
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import RolloutStarted, rollout_stream
from rollout.domain.rollout.releasable import POLL_SECONDS
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.rollout.step import Step, step
from rollout.domain.topology import servers as topology
from rollout.messages import (
    Action,
    Activation,
    Phase,
    Reason,
    Replication,
    Report,
    ServerState,
    Way,
)
from rollout.models import Liveness, Operation
from rollout.process.placements import end_of_decommissioned
from rollout.queries.operations import SILENT_SECONDS
from tests.simulation.agents import Agent
from tests.simulation.clock import Clock
from tests.simulation.log import Folded, PlacementDecider, Recorded
from tests.simulation.orders import Order, Script
from tests.simulation.rules import Broken, Rules
from tests.simulation.servers import Servers
from tests.simulation.snapshot import IN_PROGRESS, snapshot_of

#: The label that names failure domains.
ZONE = "zone"
AWAY = Degradation(reason="server_unreachable", message="The server cannot be reached.")
MODULE = "greet"
#: Silence after which a node is declared offline, and the first wait before a command is sent again, seconds.
SILENCE_SECONDS = 30.0
RESEND_SECONDS = 5.0
LONGEST_RESEND_SECONDS = 300.0
#: Between two heartbeats, and how long a command may be carried out after it was sent, seconds.
BEAT_SECONDS = 10.0
EXPIRES_SECONDS = 300.0
#: In place of `POLL_SECONDS`, to simulate more in the same time.
RARER_POLL_SECONDS = 5.0
#: Steps that one call of `advance` takes before it counts as one that never rests.
RESTLESS = 1000


#: What nodes do with commands, and the parts of the control plane that a test may break.
Scripts = Callable[[Random, Order], Script]
Steps = Callable[[RolloutState, RolloutStarted, Snapshot], Step]
#: A stream and its new event.
Change = tuple[str, object]
Changes = Iterable[Change]


@dataclass(slots=True)
class Dispatch:
    """When a command was last published, how often since what made it due, and when it is due again."""

    published_at: datetime
    publishes: int
    due_at: datetime


class ControlPlane(Folded, Clock):
    """`scripts` tells a node what to do with a command, given the chance; `step` and `placement` are those of the
    control plane unless a test breaks them. `is_faulty`: the wire loses, doubles and delays what it carries."""

    def __init__(
        self,
        seed: int = 0,
        *,
        scripts: Scripts | None = None,
        step: Steps = step,
        placement: PlacementDecider = PLACEMENT,
    ) -> None:
        Folded.__init__(self, placement)
        Clock.__init__(self)
        self.seed = seed
        self.chance = Random(seed)
        self.log: list[Recorded] = []
        self.steps = 0
        self.is_faulty = False
        self.agents: dict[str, Agent] = {}
        self.servers = Servers()
        self.hello_at: dict[str, datetime] = {}
        #: What nodes have last reported of their servers, with the number of the heartbeat.
        self.reported: dict[str, tuple[int, ServerState]] = {}
        #: The nodes whose servers refuse MODULE LOAD, as they have reported.
        self.stock_servers: set[str] = set()
        self.last_heard: dict[str, datetime] = {}
        #: When nodes have last said that they restart their server, before the newest heartbeat.
        self._restarting_at: dict[str, datetime] = {}
        self._liveness: dict[str, Liveness] = {}
        self.dispatches: dict[str, Dispatch] = {}
        self.in_progress: dict[str, Operation] = {}
        self.undue: dict[str, datetime] = {}
        self.uids: list[str] = []
        #: The versions with data types.
        self.typed: frozenset[int] = frozenset()
        self._scripts = scripts or (lambda *_: Script())
        self._step = step
        #: The replicas that people had accepted at the last release of an operation, by its key.
        self._ignored_at_release: dict[str, frozenset[str]] = {}
        #: When nodes were decommissioned.
        self.left_at: dict[str, datetime] = {}
        self._heartbeats = 0
        self._facts: dict[str, tuple[topology.ServerFacts, dict[str, Any]]] = {}
        self._relay_runs_at: datetime | None = None
        self.rules = Rules(self)

    # --- The log

    def record(self, changes: Changes) -> list[Recorded]:
        """Append (stream, event) pairs, and fold them."""
        added = []
        for stream, event in changes:
            added.append(
                recorded := Recorded(len(self.log) + 1, self.now, stream, event, uuid.UUID(int=len(self.log) + 1))
            )
            self.log.append(recorded)
            self.rules.before(recorded)
            self.apply(recorded)
            if isinstance(event, NodeDecommissioned):
                self.left_at[event.node] = self.now
            if hasattr(event, "node") and hasattr(event, "rollout"):
                self._note(event)
        if added:
            self.rules.after(added)
            self._run_relay_soon()
        return added

    def _note(self, event: Any) -> None:
        row = self.operation(event.rollout, event.node)
        if row is None:  # a report of what was never asked for
            return
        if isinstance(event, OperationReleased):
            self._ignored_at_release[row.key] = self.fleet.ignored
        if row.phase not in IN_PROGRESS:
            self.in_progress.pop(row.key, None)
            return
        if row.key not in self.in_progress:
            assert row.deadline_at
            self._at(row.deadline_at + timedelta(milliseconds=1), self._run_relay_soon)
        self.in_progress[row.key] = row

    def _decided(self, commands: Iterable[PlacementCommand]) -> list[Change]:
        """What the placements say to the commands, each after those before it."""
        changes: list[Change] = []
        states: dict[tuple[str, str], PlacementState] = {}
        for command in commands:
            at = command.report if isinstance(command, RecordReport | RejectReport) else command
            key = at.node, at.module_name
            state = states.get(key) or self.placements.get(key, PLACEMENT.initial)
            events = self._placement.decide(state, self._informed(command))
            states[key] = self._placement.fold(events, state)
            changes += [(placement_stream(*key), event) for event in events]
        return changes

    def _informed(self, command: PlacementCommand) -> PlacementCommand:
        if not isinstance(command, Release):
            return command
        known = self.rows.members.get(command.node)
        expects = None if known is None else convert(known.replication, Replication)
        return replace(command, inventory=self._seen(command.node, command.module_name), expects=expects)

    def _seen(self, node: str, module_name: str) -> tuple[Target, ...]:
        """What the node's last heartbeat has said of the module."""
        rows = [each for each in self.rows.modules.values() if (each.node, each.module_name) == (node, module_name)]
        return tuple(
            Target(version=each.version, activation=Activation(each.observed), content_sha256=each.content_sha256)
            for each in rows
            if each.observed != ABSENT
        )

    def _command_node(self, command: NodeCommand) -> list[Change]:
        events = NODE.decide(self.nodes.get(command.node, NODE.initial), command)
        return [(node_stream(command.node), event) for event in events]

    def _command_rollout(self, uid: str, command: RolloutCommand) -> list[Change]:
        events = ROLLOUT.decide(self.rollouts.get(uid, ROLLOUT.initial), command)
        return [(rollout_stream(uid), event) for event in events]

    # --- The control plane by itself

    def advance(self, uid: str) -> None:
        for _ in range(RESTLESS):
            state = self.rollouts[uid]
            if state.phase.is_final:
                return
            self.steps += 1
            fleet = snapshot_of(uid, state, self.rows, now=self.now)
            taken = self._step(state, self.started(uid), fleet)
            events = [(rollout_stream(uid), event) for event in taken.events]
            if not self.record([*events, *self._decided(taken.commands)]):
                self.rules.at_rest(uid, state, fleet)
                wake_at = taken.wake_at
                if wake_at == self.now + timedelta(seconds=POLL_SECONDS):
                    wake_at = self.now + timedelta(seconds=RARER_POLL_SECONDS)
                if wake_at is not None and wake_at != self.undue.get(uid):
                    self.undue[uid] = wake_at
                    self._at(wake_at, self._run_relay_soon)
                return
        raise Broken(self, "advance comes to rest")

    def advance_all(self) -> None:
        for uid in self.uids:
            self.advance(uid)

    def _run_relay_soon(self) -> None:
        """The relay runs when the log has grown or a moment has come; never on a tick."""
        if self._relay_runs_at is None:
            self._relay_runs_at = self.now + timedelta(milliseconds=20)
            self._at(self._relay_runs_at, self._run_relay)

    def _run_relay(self) -> None:
        self._relay_runs_at = None
        overdue = self._overdue()
        self.record(self._decided([_timeout(row) for row in overdue]))
        self.record(self._decided([end_of_decommissioned(row) for row in self._on_decommissioned_nodes()]))
        self.advance_all()
        self._publish()

    def _overdue(self) -> list[Operation]:
        """As `rollout.queries.operations.overdue_operations`."""
        found = [row for row in self.in_progress.values() if row.deadline_at and row.deadline_at < self.now]
        restarted = [row for row in found if row.way == Way.RESTART and self._is_in_maintenance(row.node)]
        if restarted:  # the real clock looks again with each tick
            self.after(RARER_POLL_SECONDS, self._run_relay_soon)
        return [row for row in found if row not in restarted]

    def _is_in_maintenance(self, name: str) -> bool:
        at = self.restarting_at(name)
        return at is not None and at > self.now - timedelta(seconds=SILENT_SECONDS)

    def _on_decommissioned_nodes(self) -> list[Operation]:
        names = [name for name, node in self.rows.nodes.items() if node.phase == NodePhase.DECOMMISSIONED]
        return [row for name in names for row in self.unfinished_on(name)]

    def unfinished_on(self, name: str) -> list[Operation]:
        return [each for each in self.rows.operations.values() if each.node == name and each.finished_at is None]

    def _publish(self) -> None:
        for row in list(self.in_progress.values()):
            if self.rows.nodes[row.node].online and self._is_due(row):
                self._send(row)

    def _is_due(self, row: Operation) -> bool:
        last = self.dispatches.get(row.key)
        if last is None or self._is_new(row, last):
            return True
        return last.due_at <= self.now and self.agents[row.node].is_heard

    def _is_new(self, row: Operation, last: Dispatch) -> bool:
        causes = (row.released_at, row.cancel_requested_at, self.hello_at.get(row.node))
        return any(each is not None and each > last.published_at for each in causes)

    def _send(self, row: Operation) -> None:
        last = self.dispatches.get(row.key)
        publishes = 0 if last is None or self._is_new(row, last) else last.publishes
        wait = min(RESEND_SECONDS * 2**publishes, LONGEST_RESEND_SECONDS)
        due_at = self.now + timedelta(seconds=wait)
        self.dispatches[row.key] = Dispatch(self.now, publishes + 1, due_at)
        self._at(due_at, self._run_relay_soon)
        agent = self.agents[row.node]
        hear = agent.hear_cancel if row.phase == Phase.CANCELING else agent.hear
        self._carry(hear, self._order(row))

    def _order(self, row: Operation) -> Order:
        assert row.released_at
        return Order(
            rollout=row.rollout,
            node=row.node,
            module_name=row.module_name,
            version=row.version,
            action=Action(row.action),
            activation=Activation(row.activation),
            content_sha256=row.content_sha256,
            generation=row.generation,
            attempt=row.attempt,
            undoes=row.undoes,
            deadline_seconds=self.rows.rollouts[row.rollout].strategy["node_deadline_seconds"],
            sent_at=self.now,
            expires=self.now + timedelta(seconds=EXPIRES_SECONDS),
            release=row.releases,
            released_at=row.released_at,
            ignored=self._ignored_at_release[row.key],
            expects=None if row.expects is None else convert(row.expects, Replication),
            way=Way(row.way),
            may_discard_data=self.rows.rollouts[row.rollout].may_discard_data,
        )

    # --- The wire

    def _carry(self, function: Callable[..., object], *args: Any) -> None:
        if not self.is_faulty:
            self.after(0.01, function, *args)
            return
        chance = self.chance.random()
        copies = 0 if chance < 0.05 else 2 if chance < 0.15 else 1
        for _ in range(copies):
            delay = self.chance.uniform(0.01, 0.5) if self.chance.random() < 0.9 else self.chance.uniform(1, 120)
            self.after(delay, function, *args)

    def carry_report(self, report: Report) -> None:
        if self.agents[report.node].is_heard:
            self._carry(self._take_report, report)

    def _take_report(self, report: Report) -> None:
        if not self.record(self._decided([RecordReport(report=report)])):
            return
        self.last_heard[report.node] = self.now
        if report.inventory is not None:
            self.record(self._command_node(RecordInventory(node=report.node, inventory=report.inventory)))
        if report.rollout in self.rollouts:
            self.advance(report.rollout)
            self._publish()

    def script_of(self, order: Order) -> Script:
        return self._scripts(self.chance, order)

    def blank(self) -> Folded:
        return Folded(self._placement)


def _timeout(row: Operation) -> End:
    return End(
        rollout=row.rollout,
        node=row.node,
        module_name=row.module_name,
        phase=Phase.TIMED_OUT,
        reason=Reason.NODE_DEADLINE,
        attempt=row.attempt,
    )
