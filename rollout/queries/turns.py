"""Whose turn it is among the scheduled operations of a rollout: a few queries for each 500 that are looked at."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain, count

from django.db.models import Q, QuerySet

from rollout.domain.rollout.releasable import Candidate, Releasable
from rollout.domain.rollout.turns import Fleet, Place, Turn
from rollout.domain.strategy import Strategy
from rollout.messages import Action, Activation, Reason
from rollout.models import Liveness, Node, NodeModule, Operation, ShardMember

#: A heartbeat that is older than so many intervals says nothing about the server now.
FRESH_INTERVALS = 1.5
_CHUNK = 500
#: Operations that may change a server.
CHANGES_SERVER = (
    Q(action=Action.REMOVE) | Q(action=Action.INSTALL, activation=Activation.LOAD) | Q(undoes__isnull=False)
)


def releasable(
    candidates: QuerySet[Operation], later: QuerySet[Operation], strategy: Strategy, now: datetime, *, limit: int
) -> Releasable:
    """Return the first `limit` of the ordered `candidates` that may be released.

    `later`: scheduled operations of later waves. One of them comes earlier if a candidate has to wait for it, as after a
    failover: otherwise the candidate's wave would never end.
    """
    found, fleet = Releasable(strategy, now, limit), _Fleet(strategy, now)
    for offset in count(0, _CHUNK):
        chunk = list(candidates[offset : offset + _CHUNK])
        found.look_at(*fleet.of(chunk))
        if found.is_full or len(chunk) < _CHUNK:
            break
    seen: set[str] = set()
    while not found.is_full and (first := found.come_first - seen):  # each round goes one server down in the shards
        seen |= first
        found.look_at(*fleet.of(list(later.filter(node__in=first))))
    return found


class _Fleet:
    """Reads what turns depend on. What is in progress is read once."""

    def __init__(self, strategy: Strategy, now: datetime) -> None:
        self._strategy, self._now = strategy, now
        self._busy: Fleet | None = None

    def of(self, rows: Sequence[Operation]) -> tuple[list[Candidate], Fleet]:
        """Return the operations as candidates, and what their turns depend on."""
        changing = [each for each in rows if changes_server(each)]
        fleet = self._fleet(changing) if changing else Fleet()
        return [_candidate(each, fleet.loaded) for each in rows], fleet

    def _fleet(self, rows: Sequence[Operation]) -> Fleet:
        names = {each.node for each in rows}
        uid, module_name = rows[0].rollout, rows[0].module_name
        members = ShardMember.objects.in_bulk(names)
        replicas = _replicas_of(members)
        related = {each.master for each in members.values() if each.master} | set(
            chain.from_iterable(replicas.values())
        )
        return replace(
            self._in_progress(),
            places=self._places(members, replicas),
            loaded=_loaded(module_name, names | related),
            unfinished=_unfinished(uid, related),
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

    def _in_progress(self) -> Fleet:
        """Return where an operation is in progress that may change a server."""
        if self._busy is None:
            in_progress = Q(deadline_at__isnull=False) | Q(may_run_until__gt=self._now)
            nodes = Operation.attempts.filter(CHANGES_SERVER, in_progress).values("node")
            shards: dict[str, set[str]] = {}
            hosts: dict[str, set[str]] = {}
            members = list(ShardMember.objects.filter(node__in=nodes).values_list("node", "shard", "host"))
            for node, shard, host in members:
                shards.setdefault(shard, set()).add(node)
                hosts.setdefault(host, set()).add(node)
            domains = _domains([node for node, _, _ in members], self._strategy.domain)
            self._busy = Fleet(busy_shards=shards, busy_hosts=hosts, busy_domains=set(domains.values()))
        return self._busy


def changes_server(row: Operation) -> bool:
    """Return True if the operation may load or unload the module."""
    is_loading = row.action == Action.INSTALL and row.activation == Activation.LOAD
    return is_loading or row.action == Action.REMOVE or row.undoes is not None


def _candidate(row: Operation, loaded: Mapping[str, int]) -> Candidate:
    return Candidate(
        node=row.node,
        is_healthy=row.healthy,
        turn=_turn(row, loaded),
        reason=row.reason,
        waiting_since=row.waiting_since,
        noted_at=row.wait_noted_at,
    )


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
