"""A whole fleet under a virtual clock: no database, no broker, no waiting.

The deciders and the step are those of the control plane, and so are the folds that make its rows. What is played here is
what carries them: the log, the relay, the clock's work, the verbs, the wire to the nodes. All chance comes from one
seeded `Random`, so that a seed replays a run exactly.
"""

import heapq
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from msgspec import convert, to_builtins

from eventstore import Decider, Metadata, begun_by, person
from rollout.domain.errors import NothingToRollBackError, OperationFinalError, RolloutError
from rollout.domain.fleet.decider import FLEET
from rollout.domain.fleet.events import FLEET_STREAM, FleetFrozen, FleetThawed
from rollout.domain.fleet.freeze import Freeze, Thaw
from rollout.domain.node.commands import (
    ActivateNode,
    DeclareOffline,
    DecommissionNode,
    DrainNode,
    EndDrift,
    EnrollNode,
    NodeCommand,
    RecordDrift,
    RecordHeartbeat,
    RecordInventory,
)
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import ABSENT, node_stream
from rollout.domain.node.health import Degradation
from rollout.domain.node.state import NodePhase, NodeState
from rollout.domain.placement.commands import (
    Cancel,
    End,
    Forget,
    GiveBack,
    PlacementCommand,
    RecordReport,
    RejectReport,
    Release,
    Retry,
    RollBack,
    Schedule,
)
from rollout.domain.placement.decider import PLACEMENT
from rollout.domain.placement.events import OperationScheduled, PlacementForgotten, Target, placement_stream
from rollout.domain.placement.state import PlacementState
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.commands import Resume, RetryNodes, RollBackAll, RolloutCommand, Start
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import RolloutPhase, RolloutStarted, rollout_stream
from rollout.domain.rollout.releasable import POLL_SECONDS
from rollout.domain.rollout.rollback import ROLLED_BACK_BY_A_NEW_ROLLOUT
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.rollout.step import Step, step
from rollout.domain.strategy import Strategy, rounded_up
from rollout.domain.topology import servers as topology
from rollout.domain.topology.places import places_of
from rollout.domain.topology.servers import facts_of, replication_of
from rollout.messages import (
    FINAL_PHASES,
    Action,
    Activation,
    InstalledModule,
    Inventory,
    NodeProfile,
    Phase,
    Reason,
    Replication,
    Report,
    ServerState,
)
from rollout.models import FleetFreeze, Liveness, Operation, ShardMember
from rollout.planning.shards import ShardOrder, refuse_without_domain
from rollout.planning.waves import canary_first
from rollout.process.placements import end_of_decommissioned
from rollout.process.shards import move
from rollout.projections.counters import operation_key
from rollout.projections.nodes import NodeFold
from rollout.projections.rollouts import RolloutFold
from rollout.readiness import why_not_ready
from rollout.services.rollback import ROLLBACKS
from rollout.services.start import without_start_conditions
from tests.simulation.agents import Agent, Disk, Order, Script
from tests.simulation.rules import Broken, Rules
from tests.simulation.servers import Servers
from tests.simulation.snapshot import IN_PROGRESS, PlanFacts, Rows, restoration_of, snapshot_of

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
#: The label that names failure domains.
ZONE = "zone"
AWAY = Degradation(reason="server_unreachable", message="The server cannot be reached.")
MODULE = "greet"
#: Silence after which a node is declared offline, and the first wait before a command is sent again, seconds.
SILENCE_SECONDS = 90.0
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
PlacementDecider = Decider[PlacementState, PlacementCommand]
#: A stream and its new event.
Change = tuple[str, object]
Changes = Iterable[Change]
Answer = TypeVar("Answer")

#: Who asked for what is told in the log itself, and not played here.
ALICE = begun_by(person("alice"), correlation_id="r1")


@dataclass(frozen=True, slots=True)
class Recorded:
    position: int
    recorded_at: datetime
    stream: str
    event: Any
    event_id: uuid.UUID
    metadata: Metadata = ALICE
    shown_actor: str = "alice"
    actor: str = ALICE.actor


@dataclass(slots=True)
class Dispatch:
    """When a command was last published, how often since what made it due, and when it is due again."""

    published_at: datetime
    publishes: int
    due_at: datetime


class Folded:
    """States and rows, made from nothing but the log."""

    def __init__(self, placement: PlacementDecider = PLACEMENT) -> None:
        self._placement = placement
        self.nodes: dict[str, NodeState] = {}
        self.placements: dict[tuple[str, str], PlacementState] = {}
        self.rollouts: dict[str, RolloutState] = {}
        self.fleet = FLEET.initial
        self.of_rollouts = RolloutFold({}, {})
        self.of_nodes = NodeFold({}, [], [])
        self.rows = Rows(
            rollouts=self.of_rollouts.rollouts,
            operations=self.of_rollouts.operations,
            nodes=self.of_nodes.nodes,
            modules=self.of_nodes._modules.rows,
            placements=self.placements,
            freeze=None,
            former=self.of_rollouts.former,
            members={},
            heard=self.heard,
        )

    def heard(self, name: str) -> Liveness:
        """Return when the node was last heard."""
        raise NotImplementedError

    def apply(self, recorded: Recorded) -> None:
        event = recorded.event
        told: Any = recorded  # all that a fold reads of a `RecordedEvent`
        match recorded.stream.partition(":")[0]:
            case "placement":
                key = event.node, event.module_name
                self.placements[key] = self._placement.evolve(self.placements.get(key, PLACEMENT.initial), event)
                self.of_nodes.apply(told)
                if isinstance(event, PlacementForgotten):
                    return
                is_new = isinstance(event, OperationScheduled) and not self.operation(event.rollout, event.node)
                self.of_rollouts.apply(told)
                if is_new:
                    self.rows.index(self.known_operation(event.rollout, event.node))
            case "node":
                self.nodes[event.node] = NODE.evolve(self.nodes.get(event.node, NODE.initial), event)
                self.of_nodes.apply(told)
                self.of_nodes.finished_nodes()
            case "fleet":
                self.fleet = FLEET.evolve(self.fleet, event)
                self._freeze(event, recorded.recorded_at)
            case "rollout":
                self.rollouts[event.rollout] = ROLLOUT.evolve(self.rollouts.get(event.rollout, ROLLOUT.initial), event)
                self.of_rollouts.apply(told)

    def _freeze(self, event: FleetFrozen | FleetThawed, now: datetime) -> None:
        if isinstance(event, FleetFrozen):
            self.rows.freeze = FleetFreeze(frozen=True, reason=event.reason, actor="alice", frozen_at=now)
        else:
            assert self.rows.freeze
            self.rows.freeze.frozen, self.rows.freeze.thawed_at = False, now

    def operation(self, uid: str, node: str) -> Operation | None:
        return self.rows.operations.get(operation_key(uid, node))

    def known_operation(self, uid: str, node: str) -> Operation:
        return self.rows.operations[operation_key(uid, node)]

    def started(self, uid: str) -> RolloutStarted:
        started = self.rollouts[uid].started
        assert started
        return started


class World(Folded):
    """`scripts` tells a node what to do with a command, given the chance; `step` and `placement` are those of the
    control plane unless a test breaks them. `is_faulty`: the wire loses, doubles and delays what it carries."""

    def __init__(
        self,
        seed: int = 0,
        *,
        nodes: int = 3,
        scripts: Scripts | None = None,
        step: Steps = step,
        placement: PlacementDecider = PLACEMENT,
        rules: Callable[["World"], Rules] = Rules,
    ) -> None:
        super().__init__(placement)
        self.seed = seed
        self.chance = Random(seed)
        self.now = EPOCH
        self.log: list[Recorded] = []
        self.steps = 0
        self.is_faulty = False
        self.agents: dict[str, Agent] = {}
        self.servers = Servers()
        self.hello_at: dict[str, datetime] = {}
        #: What nodes have last reported of their servers, with the number of the heartbeat.
        self.reported: dict[str, tuple[int, ServerState]] = {}
        self.last_heard: dict[str, datetime] = {}
        self._liveness: dict[str, Liveness] = {}
        self.dispatches: dict[str, Dispatch] = {}
        self.in_progress: dict[str, Operation] = {}
        self.undue: dict[str, datetime] = {}
        self.uids: list[str] = []
        self._scripts = scripts or (lambda *_: Script())
        self._step = step
        self._due: list[tuple[datetime, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers, self._heartbeats = 0, 0
        self._facts: dict[str, tuple[topology.ServerFacts, dict[str, Any]]] = {}
        self._relay_runs_at: datetime | None = None
        self.rules = rules(self)
        for number in range(nodes):
            self.join(f"n{number:03d}")

    # --- Time

    def after(self, seconds: float, function: Callable[..., object], *args: Any) -> None:
        self._at(self.now + timedelta(seconds=seconds), function, *args)

    def _at(self, moment: datetime, function: Callable[..., object], *args: Any) -> None:
        self._numbers += 1
        heapq.heappush(self._due, (moment, self._numbers, function, args))

    def run(self, seconds: float | None = None, *, until: Callable[[], bool] | None = None) -> None:
        """All that is due for so long, or as long as anything is; stops once `until` is true."""
        end = None if seconds is None else self.now + timedelta(seconds=seconds)
        while self._due and (end is None or self._due[0][0] <= end):
            if until is not None and until():
                return
            self.now, _, function, args = heapq.heappop(self._due)
            function(*args)
        if end is not None:
            self.now = end

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
        overdue = [row for row in self.in_progress.values() if row.deadline_at and row.deadline_at < self.now]
        self.record(self._decided([_timeout(row) for row in overdue]))
        self.record(self._decided([end_of_decommissioned(row) for row in self._on_decommissioned_nodes()]))
        self.advance_all()
        self._publish()

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
            expects=None if row.expects is None else convert(row.expects, Replication),
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

    # --- Nodes

    def join(self, name: str, disk: Disk | None = None, **server: str) -> None:
        """Add a node. `server`: of `Servers.add`."""
        self.servers.add(name, **server)
        self.agents[name] = Agent(self, name, disk)
        self._liveness[name] = Liveness(node=name, interval_seconds=BEAT_SECONDS)
        self.record(self._command_node(enrolment_of(name)))
        self.heartbeat(name, hello=True)
        self.tell_of(name)

    def inventory_of(self, name: str) -> Inventory:
        self._heartbeats += 1
        modules = tuple(
            InstalledModule(module_name=module_name, version=version, content_sha256=content, loaded=loaded)
            for (module_name, version), (content, loaded) in sorted(self.agents[name].disk.items())
        )
        return Inventory(sequence=self._heartbeats, modules=modules)

    def heartbeat(self, name: str, *, hello: bool = False) -> None:
        """A heartbeat that arrives at once. The others, every `BEAT_SECONDS`, are played only if they tell something new."""
        if hello:
            self.hello_at[name] = self.now
            if master := self.servers[name].master:
                self.servers.regroup(name, self.servers[master].group)
        inventory, state = self.inventory_of(name), self.servers.state(name)
        self._take_heartbeat(name, inventory, state, hello)

    def _take_heartbeat(self, name: str, inventory: Inventory, state: ServerState, hello: bool = False) -> None:
        zone = self.servers[name].zone
        profile = NodeProfile(platform="linux/x86_64", labels={ZONE: zone} if zone else {})
        degradation = AWAY if state.problem else None
        if inventory.sequence < self.reported.get(name, (0, None))[0]:
            return
        command = RecordHeartbeat(node=name, hello=hello, profile=profile, inventory=inventory, degradation=degradation)
        self.last_heard[name] = self.now
        self.record(self._command_node(command))
        is_known = name in self.rows.members and self.reported[name][1] == state
        self.reported[name] = inventory.sequence, state
        moved = set() if is_known else self._place_members()
        rows = (row for node in sorted({name, *moved}) for row in self.unfinished_on(node))
        for uid in sorted({row.rollout for row in rows}):
            self.advance(uid)
        self._run_relay_soon()

    def _place_members(self) -> set[str]:
        """Place the nodes of the fleet by what they have reported. Return those that have changed."""
        members = self.rows.members
        fleet = [name for name in sorted(self.reported) if self.rows.nodes[name].phase != NodePhase.DECOMMISSIONED]
        facts = {}
        for name in fleet:
            state = self.reported[name][1]
            if state.role or name not in members:
                facts[name] = facts_of(state), to_builtins(replication_of(state))
            else:  # it is away, and its place stays
                facts[name] = self._facts[name]
        self._facts = facts
        places = places_of([topology.Server(node=name, facts=facts[name][0]) for name in fleet])
        former = {name: vars(row) | {"_state": None} for name, row in members.items()}
        known = dict(members)
        members.clear()
        for name in fleet:
            row = members[name] = known.get(name) or ShardMember(node=name)
            row.replication, row.host = facts[name][1], self.servers[name].host
            row.not_ready, row.not_ready_message = why_not_ready(self.reported[name][1]) or ("", "")
            move(row, places[name], self.now)
        now = {name: vars(row) | {"_state": None} for name, row in members.items()}
        return {name for name in fleet if now[name] != former.get(name)}

    def heard(self, name: str) -> Liveness:
        agent = self.agents[name]
        seconds = ((agent.silent_since or self.now) - EPOCH).total_seconds()
        beats = (seconds - agent.beats_at) // BEAT_SECONDS
        beat = EPOCH + timedelta(seconds=agent.beats_at + beats * BEAT_SECONDS)
        last_seen = max(beat, self.last_heard[name])
        row = self._liveness[name]
        row.last_seen = last_seen
        return row

    def tell_of(self, *names: str) -> None:
        """The servers of these nodes have changed: their next heartbeats tell of it."""
        for name in names:
            seconds = (self.now - EPOCH).total_seconds() - self.agents[name].beats_at
            self.after(BEAT_SECONDS - seconds % BEAT_SECONDS, self._beat, name)

    def _beat(self, name: str) -> None:
        agent, state = self.agents[name], self.servers.state(name)
        if not agent.is_heard or self.reported[name][1] == state:
            return
        self._carry(self._take_heartbeat, name, self.inventory_of(name), state)
        self.after(BEAT_SECONDS, self._beat, name)  # if the wire loses it

    def changed(self, group: str) -> None:
        """Something has changed in this shard."""
        self.tell_of(*(each.name for each in self.servers if each.group == group))

    def kill(self, name: str, seconds: float) -> None:
        """Its agent dies, and is started again after so long."""
        self.agents[name].stop()
        self._fall_silent(name)
        self.after(seconds, self.revive, name, True)

    def cut(self, name: str, seconds: float) -> None:
        """Nothing reaches it, and nothing of it arrives, for so long; it works on."""
        self.agents[name].reachable = False
        self._fall_silent(name)
        self.after(seconds, self.revive, name, False)

    def stop_server(self, name: str, seconds: float) -> None:
        """Its server is away for so long, as its next heartbeats report."""
        self.servers[name].is_up = False
        self.changed(self.servers[name].group)
        self.after(seconds, self.start_server, name)

    def start_server(self, name: str) -> None:
        self.servers[name].is_up = True
        self.changed(self.servers[name].group)
        self._separate(name)

    def load_data(self, name: str, seconds: float) -> None:
        """Its server loads data for so long."""
        self._unready(name, loads=1)
        self.after(seconds, self._unready, name, -1)

    def back_up(self, name: str, seconds: float) -> None:
        """A tool copies the data of its server for so long."""
        self._unready(name, backups=1)
        self.after(seconds, self._unready, name, 0, -1)

    def _unready(self, name: str, loads: int = 0, backups: int = 0) -> None:
        self.servers[name].loads += loads
        self.servers[name].backups += backups
        self.tell_of(name)

    def fail_over(self, name: str) -> None:
        """A replica of the master `name` takes its place. The other replicas follow one after the other. The old master
        follows too: until then, it is alone or away."""
        replicas = [each for each in self.servers.replicas(name) if each.is_up]
        server = self.servers[name]
        if server.master or not replicas:
            return
        group, chosen = server.group, self.chance.choice(replicas).name
        self.servers.move(group, self.now)
        self.servers[chosen].master = ""
        for each in self.servers.replicas(name):
            self.after(self.chance.uniform(0.1, 8.0), self._follow, each.name, name, chosen)
        if self.chance.random() < 0.5:
            self.stop_server(name, self.chance.choice((5.0, 60.0, 400.0)))
        self._separate(name)
        self.after(self.chance.choice((2.0, 30.0, 500.0)), self._follow, name, "", chosen)
        self.changed(group)

    def _follow(self, name: str, former: str, chosen: str) -> None:
        """Copy the server that was chosen in a failover, unless the server has another master by now."""
        server = self.servers[name]
        if not server.is_up:
            self.after(2.0, self._follow, name, former, chosen)
        elif server.master == former:
            self.replicate(name, self.servers.top(chosen))
            if former:
                self._separate(former)

    def _separate(self, name: str) -> None:
        """A former master that is up and has no replicas any more is a copy of nothing, until it follows."""
        server = self.servers[name]
        is_alone = not server.master and not self.servers.replicas(name)
        if (
            server.is_up
            and is_alone
            and any(each.group == server.group and each is not server for each in self.servers)
        ):
            self._numbers += 1
            server.group = f"{name} {self._numbers}"

    def replicate(self, name: str, master: str) -> None:
        """The server becomes a replica."""
        self._move(name)
        self.servers.follow(name, master)
        self._move(name)

    def _move(self, name: str) -> None:
        self.servers.move(self.servers[name].group, self.now)
        self.changed(self.servers[name].group)

    def leave_shard(self, name: str) -> None:
        """The replica becomes a master of its own."""
        self._move(name)
        self._numbers += 1
        self.servers.leave(name, f"{name} {self._numbers}")
        self._move(name)

    def _fall_silent(self, name: str) -> None:
        agent = self.agents[name]
        agent.silent_since = agent.silent_since or self.now
        self.after(SILENCE_SECONDS + 0.1, self._judge_silence, name)

    def _judge_silence(self, name: str) -> None:
        since = self.agents[name].silent_since
        if since is None or (self.now - since).total_seconds() < SILENCE_SECONDS:
            return
        given_back = [
            GiveBack(node=name, module_name=row.module_name)
            for row in self.unfinished_on(name)
            if row.phase == Phase.QUEUED
        ]
        self.record([*self._command_node(DeclareOffline(node=name)), *self._decided(given_back)])

    def revive(self, name: str, hello: bool) -> None:
        agent = self.agents[name]
        is_new = hello and not agent.alive
        if not agent.alive and not hello:
            return  # it was cut off, and died meanwhile
        if agent.is_heard:
            return
        agent.silent_since = None
        agent.start()
        self.heartbeat(name, hello=is_new)

    def drain(self, name: str) -> None:
        self.record(self._command_node(DrainNode(node=name)))

    def activate(self, name: str) -> None:
        self.record(self._command_node(ActivateNode(node=name)))

    def decommission(self, name: str) -> None:
        ends = [end_of_decommissioned(row) for row in self.unfinished_on(name)]
        forgotten = Forget(node=name, module_name=MODULE)
        self.record([*self._command_node(DecommissionNode(node=name)), *self._decided([*ends, forgotten])])
        self._place_members()
        self.servers.regroup(name, f"{name} decommissioned")  # below it, nothing tells any more whose data is copied

    def drift(self, name: str, version: int) -> None:
        """The files of the module are missing on the disk, as the next heartbeat reports."""
        placement = self.placements.get((name, MODULE))
        if (
            placement is not None
            and placement.live is None
            and any(each.version == version for each in placement.desired)
        ):
            self.agents[name].spoil(MODULE, version)
            command = RecordDrift(
                node=name, module_name=MODULE, version=version, desired="load", observed="absent", content_sha256=""
            )
            self.record(self._command_node(command))

    def end_drift(self, name: str, version: int) -> None:
        self.record(self._command_node(EndDrift(node=name, module_name=MODULE, version=version)))

    # --- What people do

    def start(
        self,
        strategy: Strategy | None = None,
        *,
        version: int = 1,
        action: Action = Action.INSTALL,
        supersede: bool = False,
        nodes: Iterable[str] | None = None,
        **more: Any,
    ) -> str:
        """The uid of a new rollout of greet. Raises: `RolloutError`."""
        uid = uuid.UUID(int=self.chance.getrandbits(128)).hex
        strategy = strategy or Strategy()
        known = {name: self.rows.nodes[name] for name in sorted(nodes or self.rows.nodes)}
        chosen = [row for row in known.values() if row.phase != NodePhase.DECOMMISSIONED]
        chosen.sort(key=lambda row: row.phase != NodePhase.ONLINE)  # the canary is one that is there
        skips = {row.name: (Reason.NODE_DRAINING, "") for row in chosen if row.draining}
        request = RolloutRequest(action=action, module_name=MODULE, version=version, strategy=strategy)
        order = ShardOrder(request, [row for row in chosen if row.name not in skips], PlanFacts(self.rows))
        skips |= order.skips()
        included = [row for row in chosen if row.name not in skips]
        refuse_without_domain(strategy.domain, included)
        canary = rounded_up(strategy.canary, len(included))
        order = ShardOrder(request, included, PlanFacts(self.rows))
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
                activation=Activation.LOAD,
                content_sha256=f"c{version}" if action == Action.INSTALL else "",
                ordinal=ordinal,
                wave=-1 if name in skips else next(waves),
                supersede=supersede,
                skip=skips.get(name),
            )
            for ordinal, name in enumerate(names)
        ]
        started = RolloutStarted(
            rollout=uid,
            action=action,
            module_name=MODULE,
            version=version,
            activation=Activation.LOAD,
            total=len(names),
            waves=sizes,
            named=nodes is not None,
            strategy=strategy,
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

    def tried(self, function: Callable[..., Answer], *args: Any, **more: Any) -> Answer | None:
        """What the function answers, None if it is refused."""
        try:
            return function(*args, **more)
        except RolloutError:
            return None

    # --- What it looks like

    def blank(self) -> Folded:
        return Folded(self._placement)

    def phase(self, uid: str) -> RolloutPhase:
        return self.rollouts[uid].phase

    def phases(self, uid: str) -> dict[str, str]:
        return {row.node: str(row.phase) for row in self.rows.of(uid)}

    def events(self, uid: str) -> list[str]:
        """Names of the rollout's own events."""
        return [type(each.event).__name__ for each in self.log if each.stream == rollout_stream(uid)]


def enrolment_of(name: str) -> EnrollNode:
    """The same each time: nothing changes for a node that has joined."""
    return EnrollNode(
        node=name,
        token="t",
        public_key=f"key of {name}",
        broker_password_sha256=f"password of {name}",
        labels={},
        accepted=True,
        is_silent=True,
    )


def _timeout(row: Operation) -> End:
    return End(
        rollout=row.rollout,
        node=row.node,
        module_name=row.module_name,
        phase=Phase.TIMED_OUT,
        reason=Reason.NODE_DEADLINE,
        attempt=row.attempt,
    )
