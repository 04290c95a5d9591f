"""Whose turn it is among the scheduled operations of a rollout: a few queries for each 500 that are looked at."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain, count

from django.db.models import Q, QuerySet

from rollout.domain.rollout.snapshot import Ready, Waiting
from rollout.domain.rollout.turns import Block, Blocked, Fleet, Place, Turn, blocked
from rollout.domain.strategy import Strategy
from rollout.messages import Action, Activation, Reason
from rollout.models import Liveness, Node, NodeModule, Operation, ShardMember

#: A heartbeat that is older than so many intervals says nothing about the server now.
FRESH_INTERVALS = 1.5
#: How often nodes are looked at again that wait for a heartbeat, or for operations of other rollouts, seconds.
POLL_SECONDS = 1.0
#: A wait that lasts is recorded again, with its duration, after so many seconds.
NOTED_AGAIN_SECONDS = 600.0
#: Blocked nodes that a snapshot names.
MOST_BLOCKED = 100
_CHUNK = 500
#: Operations that may change a server.
CHANGES_SERVER = (
    Q(action=Action.REMOVE) | Q(action=Action.INSTALL, activation=Activation.LOAD) | Q(undoes__isnull=False)
)


@dataclass(slots=True)
class Turns:
    """What was found: see the fields of the same names in `Snapshot`. `wake_at`: when to look again."""

    ready: list[Ready] = field(default_factory=list)
    blocked: list[Blocked] = field(default_factory=list)
    waits: list[Waiting] = field(default_factory=list)
    unfit: list[Waiting] = field(default_factory=list)
    is_waiting: bool = False
    busy_domains: frozenset[str] = frozenset()
    wake_at: datetime | None = None

    def wake(self, at: datetime) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def turns(
    candidates: QuerySet[Operation], later: QuerySet[Operation], strategy: Strategy, now: datetime, *, limit: int
) -> Turns:
    """Return the first `limit` of the ordered `candidates` that may be released, and what blocks those before them.

    `later`: scheduled operations of later waves. One of them comes earlier if a candidate has to wait for it, as after a
    failover: otherwise the candidate's wave would never end.
    """
    found = _Search(strategy, now, limit)
    for offset in count(0, _CHUNK):
        chunk = list(candidates[offset : offset + _CHUNK])
        found.look_at(chunk)
        if len(found.turns.ready) >= limit or len(chunk) < _CHUNK:
            break
    found.look_at_earlier_turns(later)
    return found.turns


class _Search:
    def __init__(self, strategy: Strategy, now: datetime, limit: int) -> None:
        self._strategy, self._now, self._limit = strategy, now, limit
        self._busy: tuple[dict[str, set[str]], dict[str, set[str]]] | None = None
        self.turns = Turns()

    def look_at(self, rows: Sequence[Operation]) -> None:
        changing = [each for each in rows if changes_server(each)]
        fleet = self._fleet(changing) if changing else None
        for row in rows:
            if len(self.turns.ready) >= self._limit:
                return
            if fleet is None or (turn := _turn(row, fleet.loaded)) is None:
                self.turns.ready.append(Ready(node=row.node, is_healthy=row.healthy))
                continue
            self._note(row, fleet.places.get(row.node), blocked(turn, fleet))

    def look_at_earlier_turns(self, later: QuerySet[Operation]) -> None:
        """Look at the operations of later waves that block others. Each round goes one server down in the shards."""
        seen: set[str] = set()
        while len(self.turns.ready) < self._limit:
            behind = set(chain.from_iterable(each.behind for each in self.turns.blocked)) - seen
            if not behind:
                return
            seen |= behind
            self.look_at(list(later.filter(node__in=behind)))

    def _note(self, row: Operation, place: Place | None, block: Blocked | None) -> None:
        self.turns.is_waiting |= row.waiting_since is not None
        if block is None and place is not None:
            ready = Ready(
                node=row.node, is_healthy=row.healthy, shard=place.shard, host=place.host, domain=place.domain
            )
            self.turns.ready.append(ready)
        elif block is not None:
            self._note_block(row, block)

    def _note_block(self, row: Operation, block: Blocked) -> None:
        if len(self.turns.blocked) < MOST_BLOCKED or block.behind:
            self.turns.blocked.append(block)
        if block.block in {Block.HEARTBEAT, Block.SHARD_BUSY, Block.HOST_BUSY}:
            self.turns.wake(self._now + timedelta(seconds=POLL_SECONDS))
        elif block.reason is not None:
            self._note_reason(row, block, block.reason)

    def _note_reason(self, row: Operation, block: Blocked, reason: Reason) -> None:
        """Record the wait, skip the node after the deadline."""
        self.turns.is_waiting = True
        since = row.waiting_since if row.waiting_since is not None and row.reason == reason else self._now
        waited, deadline = self._now - since, timedelta(seconds=self._strategy.ready_deadline_seconds)
        words = f"{row.node} waited for {block.text}"
        if block.is_unfit or waited >= deadline:
            lasting = "" if block.is_unfit else f", for {_minutes(waited)}"
            self.turns.unfit.append(Waiting(node=row.node, reason=reason, message=f"{words}{lasting}."))
            return
        noted_at = row.wait_noted_at if row.reason == reason else None
        again = None if noted_at is None else noted_at + timedelta(seconds=NOTED_AGAIN_SECONDS)
        if again is None or again <= self._now:
            lasting = f" It has waited for {_minutes(waited)}." if again is not None else ""
            message = f"It waits for {block.text}.{lasting}"
            self.turns.waits.append(Waiting(node=row.node, reason=reason, message=message))
            return
        self.turns.wake(min(again, since + deadline))

    def _fleet(self, rows: Sequence[Operation]) -> Fleet:
        names = {each.node for each in rows}
        uid, module_name = rows[0].rollout, rows[0].module_name
        members = ShardMember.objects.in_bulk(names)
        replicas = _replicas_of(members)
        related = {each.master for each in members.values() if each.master} | set(
            chain.from_iterable(replicas.values())
        )
        shards, hosts = self._busy_places()
        return Fleet(
            places=self._places(members, replicas),
            loaded=_loaded(module_name, names | related),
            unfinished=_unfinished(uid, related),
            busy_shards=shards,
            busy_hosts=hosts,
        )

    def _places(self, members: Mapping[str, ShardMember], replicas: Mapping[str, tuple[str, ...]]) -> dict[str, Place]:
        heard = {
            each.node: each for each in Liveness.objects.filter(node__in=members).only("last_seen", "interval_seconds")
        }
        domains = _domains(members, self._strategy.domain)
        return {
            name: _place(member, replicas.get(name, ()), domains.get(name, ""), heard.get(name), self._now)
            for name, member in members.items()
        }

    def _busy_places(self) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        """Return the nodes with an operation in progress that may change their server, by shard and by host."""
        if self._busy is None:
            in_progress = Q(deadline_at__isnull=False) | Q(may_run_until__gt=self._now)
            nodes = Operation.attempts.filter(CHANGES_SERVER, in_progress).values("node")
            shards: dict[str, set[str]] = {}
            hosts: dict[str, set[str]] = {}
            members = list(ShardMember.objects.filter(node__in=nodes).values_list("node", "shard", "host"))
            for node, shard, host in members:
                shards.setdefault(shard, set()).add(node)
                hosts.setdefault(host, set()).add(node)
            self.turns.busy_domains = frozenset(
                _domains([node for node, _, _ in members], self._strategy.domain).values()
            )
            self._busy = shards, hosts
        return self._busy


def changes_server(row: Operation) -> bool:
    """Return True if the operation may load or unload the module."""
    is_loading = row.action == Action.INSTALL and row.activation == Activation.LOAD
    return is_loading or row.action == Action.REMOVE or row.undoes is not None


def _turn(row: Operation, loaded: Mapping[str, int]) -> Turn | None:
    """Return the turn of the operation, None if it only changes files."""
    if not changes_server(row):
        return None
    if row.action == Action.INSTALL and row.activation == Activation.LOAD:
        return Turn(node=row.node, target=row.version, returned_at=row.returned_at)
    leaving = row.version if row.action == Action.REMOVE else row.undoes
    if loaded.get(row.node) != leaving:
        return None
    return Turn(node=row.node, target=None, returned_at=row.returned_at)


def _place(member: ShardMember, replicas: tuple[str, ...], domain: str, heard: Liveness | None, now: datetime) -> Place:
    interval = FRESH_INTERVALS * heard.interval_seconds if heard else 0.0
    return Place(
        shard=member.shard,
        role=member.role,
        master=member.master,
        replicas=replicas,
        unmanaged=tuple(member.unmanaged),
        unmanaged_master=member.unmanaged_master,
        host=member.host,
        domain=domain,
        heard_at=heard.last_seen if heard else None,
        is_fresh=heard is not None and heard.last_seen + timedelta(seconds=interval) >= now,
        not_ready=Reason(member.not_ready) if member.not_ready else None,
        not_ready_message=member.not_ready_message,
    )


def _replicas_of(nodes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the nodes that copy each of these nodes."""
    found: dict[str, tuple[str, ...]] = {}
    rows = ShardMember.objects.filter(master__in=list(nodes)).order_by("node")
    for master, node in rows.values_list("master", "node"):
        found[master] = (*found.get(master, ()), node)
    return found


def _loaded(module_name: str, nodes: Collection[str]) -> dict[str, int]:
    rows = NodeModule.objects.filter(module_name=module_name, observed=Activation.LOAD, node__in=nodes)
    return dict(rows.values_list("node", "version"))


def _unfinished(uid: str, nodes: Collection[str]) -> frozenset[str]:
    if not nodes:
        return frozenset()
    rows = Operation.objects.filter(rollout=uid, node__in=nodes, finished_at__isnull=True)
    return frozenset(rows.values_list("node", flat=True))


def _domains(nodes: Iterable[str], label: str) -> dict[str, str]:
    """Return the value of the label of each node that has it; no query without a label."""
    if not label:
        return {}
    rows = Node.objects.filter(name__in=list(nodes)).values_list("name", "agent_labels", "labels")
    values = {name: {**reported, **own}.get(label, "") for name, reported, own in rows}
    return {name: value for name, value in values.items() if value}


def _minutes(waited: timedelta) -> str:
    minutes = int(waited.total_seconds() // 60)
    return "1 minute" if minutes == 1 else f"{minutes} minutes"
