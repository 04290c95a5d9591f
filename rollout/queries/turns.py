"""Whose turn it is among the scheduled operations of a rollout: a few queries for each 500 that are looked at."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, count
from typing import Any

from django.db.models import Exists, Max, OuterRef, Q, QuerySet

from rollout.domain.restarts import Permission
from rollout.domain.rollout.releasable import Candidate, Releasable
from rollout.domain.rollout.turns import Fleet, Place, Turn, Use
from rollout.domain.strategy import Strategy
from rollout.domain.words import some_of
from rollout.messages import Action, Activation, Reason, Way
from rollout.models import Liveness, Node, NodeFacts, NodeModule, Operation, Rollout, ShardMember
from rollout.queries import heavy_work
from rollout.queries.failbacks import unsafe_failbacks
from rollout.queries.restarts import deciding, outdated, unsafe_restarts
from rollout.queries.use import calls_on, in_words

#: A heartbeat that is older than so many intervals says nothing about the server now.
FRESH_INTERVALS = 1.5
#: That of the default interval: with a shorter one, a busy control worker would never see a fresh heartbeat. Seconds.
FRESH_SECONDS = 15.0
#: A node whose newest heartbeat is older than so many intervals has missed more than one.
SILENT_INTERVALS = 3.0
#: All members of a shard have reported a failover within this time, seconds: the longest allowed silence of an online node
#: with the default interval, and the time of a failover.
MOVING_SECONDS = 60.0
_CHUNK = 500
#: Operations that may change a server.
CHANGES_SERVER = (
    Q(action=Action.REMOVE) | Q(action=Action.INSTALL, activation=Activation.LOAD) | Q(undoes__isnull=False)
)
#: Installations that give a server another version of the module by a restart.
REPLACED_BY_RESTART = Q(
    Exists(
        NodeModule.objects.filter(
            node=OuterRef("node"), module_name=OuterRef("module_name"), observed=Activation.LOAD
        ).exclude(version=OuterRef("version"))
    ),
    way=Way.RESTART,
    action=Action.INSTALL,
    rollback=False,
)


def in_progress(now: datetime) -> Q:
    """Match operations that are in progress, and late ones."""
    return Q(deadline_at__isnull=False) | Q(may_run_until__gt=now)


class Facts:
    """Reads from the database what turns depend on. The simulation has the same facts in memory."""

    def members(self, nodes: Collection[str]) -> Mapping[str, ShardMember]:
        found = ShardMember.objects.defer("facts", "replication", "migrations").in_bulk(nodes)
        unplaced = set(nodes) - found.keys()
        return found | _members_without_facts(unplaced) if unplaced else found

    def heard(self, nodes: Collection[str]) -> Mapping[str, Liveness]:
        rows = Liveness.objects.filter(node__in=nodes).only("last_seen", "facts_at", "interval_seconds")
        return {each.node: each for each in rows}

    def domains(self, nodes: Collection[str], label: str) -> dict[str, str]:
        """Return the value of the label of each node that has it."""
        rows = Node.objects.filter(name__in=nodes).values_list("name", "agent_labels", "labels")
        values = {name: {**reported, **own}.get(label, "") for name, reported, own in rows}
        return {name: value for name, value in values.items() if value}

    def loaded(self, module_name: str, nodes: Collection[str]) -> dict[str, int]:
        """Return the version of the module that each node has loaded."""
        rows = NodeModule.objects.filter(module_name=module_name, observed=Activation.LOAD, node__in=nodes)
        return dict(rows.values_list("node", "version"))

    def unfinished(self, uid: str, nodes: Collection[str]) -> Sequence[Operation]:
        """Return the operations of the rollout on the nodes that have not ended."""
        return list(Operation.objects.filter(rollout=uid, node__in=nodes, finished_at__isnull=True))

    def servers(self, nodes: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the newest `messages.ServerState` of each node, as JSON."""
        return dict(NodeFacts.objects.filter(node__in=nodes).values_list("node", "server"))

    def at_work(self, hosts: Collection[str], nodes: Collection[str]) -> Mapping[str, str]:
        """Return the nodes whose servers save, load or synchronize their data: `queries.heavy_work.at_work`."""
        return heavy_work.at_work(hosts, nodes)

    def looping(self, nodes: Collection[str]) -> Mapping[str, int]:
        """Return the nodes that have begun more than one full synchronization lately, and how many."""
        rows = NodeFacts.objects.filter(node__in=nodes, server__full_syncs__gt=1).values_list(
            "node", "server__full_syncs"
        )
        return {node: begun for node, begun in rows if begun is not None}  # SQLite compares it as a text

    def restarts_ended(self, nodes: Collection[str], since: datetime) -> Mapping[str, datetime]:
        """Return when the newest restart of each of these nodes has ended, of those that have since then."""
        rows = Operation.attempts.filter(way=Way.RESTART, node__in=nodes, finished_at__gte=since)
        return dict(rows.values_list("node").annotate(Max("finished_at")))

    def heavy(self, now: datetime) -> Sequence[Operation]:
        """Return the operations in progress that make a server save its data, or may, also late ones."""
        rows = Operation.attempts.filter(CHANGES_SERVER, in_progress(now), heavy_work.HEAVY)
        return list(rows.only("node", "way", "action"))

    def permission(self, uid: str) -> Permission:
        """Return what a person has allowed for the restarts of the rollout."""
        row = Rollout.objects.only("may_interrupt", "may_discard_data").get(uid=uid)
        return Permission(may_interrupt=row.may_interrupt, may_discard_data=row.may_discard_data)

    def used(self, module_name: str, nodes: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the nodes on which clients have called the module lately: `queries.use.calls_on`."""
        return calls_on(module_name, nodes)

    def in_progress(self, now: datetime) -> Mapping[str, ShardMember]:
        """Return the nodes on which an operation is in progress that may change the server, also a late one."""
        nodes = Operation.attempts.filter(CHANGES_SERVER, in_progress(now)).values("node")
        members = ShardMember.objects.filter(node__in=nodes).only("node", "shard", "host", "former_shards")
        return {each.node: each for each in members}

    def labels(self, now: datetime) -> set[str]:
        """Return the labels that name the failure domains of the rollouts of these operations."""
        uids = Operation.attempts.filter(CHANGES_SERVER, in_progress(now)).values("rollout")
        found = Rollout.objects.filter(uid__in=uids).values_list("strategy__domain", flat=True).distinct()
        return {each for each in found if each}


def releasable(
    chunks: Iterable[Sequence[Operation]],
    later: Callable[[Collection[str]], Sequence[Operation]],
    facts: Facts,
    strategy: Strategy,
    now: datetime,
    *,
    limit: int,
    refuses_use: bool = False,
    shows_way_back: bool = False,
) -> Releasable:
    """Return the first `limit` of the ordered operations that may be released. Chunks are read until so many are found.

    `refuses_use`: nothing is unloaded while clients call the module on a copy of the shard. `shows_way_back`: see `Releasable`.

    `later`: returns the scheduled operations of later waves on these nodes. One of them comes earlier if a candidate has to
    wait for it, as after a failover: otherwise the candidate's wave would never end.
    """
    found = Releasable(strategy, now, limit, shows_way_back=shows_way_back)
    fleet = _Fleet(facts, strategy, now, refuses_use=refuses_use)
    for chunk in chunks:
        found.look_at(*fleet.of(chunk))
        if found.is_full:
            break
    seen: set[str] = set()
    while not found.is_full and (first := found.come_first - seen):  # each round goes one server down in the shards
        seen |= first
        found.look_at(*fleet.of(later(first)))
    return found


def in_chunks(candidates: QuerySet[Operation]) -> Iterator[Sequence[Operation]]:
    for offset in count(0, _CHUNK):
        chunk = list(candidates[offset : offset + _CHUNK])
        yield chunk
        if len(chunk) < _CHUNK:
            return


class _Fleet:
    """What turns depend on. What is in progress is read once."""

    def __init__(self, facts: Facts, strategy: Strategy, now: datetime, *, refuses_use: bool) -> None:
        self._facts, self._strategy, self._now, self._refuses_use = facts, strategy, now, refuses_use
        self._busy: Fleet | None = None

    def of(self, rows: Sequence[Operation]) -> tuple[list[Candidate], Fleet]:
        """Return the operations as candidates, and what their turns depend on."""
        changing = [each for each in rows if changes_server(each)]
        fleet = self._fleet(changing) if changing else Fleet()
        return [_candidate(each, fleet) for each in rows], fleet

    def _fleet(self, rows: Sequence[Operation]) -> Fleet:
        names = {each.node for each in rows}
        uid, module_name = rows[0].rollout, rows[0].module_name
        members = self._members(names)
        related = members.keys() | names
        heard, busy = self._facts.heard(members.keys()), self._in_progress()
        fleet = replace(
            busy,
            places=self._places(names & members.keys(), members, heard, busy.busy_domains),
            loaded=self._facts.loaded(module_name, related),
            stale={each for each in members if not is_heard(heard.get(each), FRESH_INTERVALS, self._now)},
            silent={each for each in members if not is_heard(heard.get(each), SILENT_INTERVALS, self._now)},
        )
        in_shards = {name for name, each in members.items() if each.master or each.unmanaged_master or each.replicas}
        # Also a former master that has not reported yet that it copies the new one.
        in_shards.update(chain.from_iterable(each.replicas for each in members.values()))
        unfinished = self._facts.unfinished(uid, in_shards) if in_shards else ()
        # The masters too that follow their replicas.
        restarting = [each for each in (*rows, *unfinished) if each.way == Way.RESTART and not each.fails_back_to]
        heavy = [each for each in rows if heavy_work.is_heavy(each)]
        servers = self._servers(restarting, heavy, members)
        hosts = heavy_work.hosts_of(heavy, members, servers)
        return replace(
            fleet,
            places={name: replace(each, heavy_hosts=hosts.get(name, {})) for name, each in fleet.places.items()},
            unfinished={each.node: _target(each, fleet) for each in unfinished},
            used=self._used(rows, members, fleet) if self._refuses_use else {},
            unsafe={
                **unsafe_restarts(restarting, members, servers, fleet.stale, self._facts),
                **unsafe_failbacks(rows, members, heard, self._facts),
            },
            withheld={name for name, server in servers.items() if server.get("withheld")},
            outdated=outdated(
                (each.node for each in restarting if each.node in names),
                members,
                servers,
                _heard_times(heard),
                self._facts,
            ),
            at_work=heavy_work.working(hosts, members.values(), self._facts),
            looping=self._looping(members),
        )

    def _looping(self, members: Mapping[str, ShardMember]) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for name, begun in self._facts.looping(members.keys()).items():
            found.setdefault(members[name].shard, {})[name] = begun
        return found

    def _servers(
        self, restarting: Iterable[Operation], heavy: Iterable[Operation], members: Mapping[str, ShardMember]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Return the servers that decide if and where these operations may be released. One query if there are any."""
        names = deciding({each.node for each in restarting}, members) | {each.node for each in heavy}
        return self._facts.servers(names) if names else {}

    def _used(self, rows: Sequence[Operation], members: Mapping[str, ShardMember], fleet: Fleet) -> Mapping[str, Use]:
        """Return the use of the module on the copies of the shard of each node that would unload it."""
        unloading = {
            each.node
            for each in rows
            if each.action == Action.REMOVE and not each.rollback and fleet.loaded.get(each.node) == each.version
        }
        copies: dict[str, set[str]] = {}
        for name, each in members.items():
            copies.setdefault(each.shard, set()).add(name)
        shards = {name: copies[members[name].shard] for name in unloading if name in members}
        module_name = rows[0].module_name
        found = self._facts.used(module_name, set().union(*shards.values())) if shards else {}
        used = {name: shard & found.keys() for name, shard in shards.items()}
        return {name: _use(module_name, name, nodes, found, members) for name, nodes in used.items() if nodes}

    def _members(self, names: Collection[str]) -> dict[str, ShardMember]:
        """Return the members of the shards of these nodes. One query for each level of a shard."""
        members: dict[str, ShardMember] = {}
        seen, new = set(names), set(names)
        while new:
            found = self._facts.members(new)
            members.update(found)
            new = {each.master for each in found.values() if each.master}
            new.update(chain.from_iterable(each.replicas for each in found.values()))
            new -= seen
            seen |= new
        return members

    def _places(
        self,
        names: Collection[str],
        members: Mapping[str, ShardMember],
        heard: Mapping[str, Liveness],
        labels: Collection[str],
    ) -> dict[str, Place]:
        domains = {label: self._facts.domains(names, label) for label in labels}
        return {
            name: replace(
                _place(members[name], members, heard.get(name), self._now),
                domains={label: value.get(name, "") for label, value in domains.items()},
            )
            for name in names
        }

    def _in_progress(self) -> Fleet:
        """Return where an operation is in progress that may change a server."""
        if self._busy is None:
            shards: dict[str, set[str]] = {}
            hosts: dict[str, set[str]] = {}
            members = self._facts.in_progress(self._now)
            for node, member in members.items():
                for shard in (member.shard, *lately_left(member, self._now)):
                    shards.setdefault(shard, set()).add(node)
                hosts.setdefault(member.host, set()).add(node)
            labels = {self._strategy.domain} - {""} | (self._facts.labels(self._now) if members else set())
            domains = {label: self._values(label, members.keys()) for label in sorted(labels)}
            heavy = heavy_work.in_progress(self._facts.heavy(self._now), self._facts) if members else {}
            self._busy = Fleet(
                busy_shards=shards,
                busy_hosts=hosts,
                busy_domains=domains,
                busy_heavily=heavy,
                busy=members.keys(),
            )
        return self._busy

    def _values(self, label: str, nodes: Collection[str]) -> set[str]:
        """Return the failure domains of the nodes. Those without the label are one of their own, as far as is known."""
        found = self._facts.domains(nodes, label) if nodes else {}
        return {found.get(each, "") for each in nodes}


def changes_server(row: Operation) -> bool:
    """Return True if the operation may load or unload the module."""
    is_loading = row.action == Action.INSTALL and row.activation == Activation.LOAD
    return is_loading or row.action == Action.REMOVE or row.undoes is not None


def _candidate(row: Operation, fleet: Fleet) -> Candidate:
    return Candidate(
        node=row.node,
        is_healthy=row.healthy,
        turn=_turn(row, fleet),
        reason=row.reason,
        message=row.message,
        waiting_since=row.waiting_since,
        noted_at=row.wait_noted_at,
        releases=row.releases,
        restarts=row.way == Way.RESTART,
        replaces=is_replaced_by_restart(row, fleet.loaded),
    )


def is_replaced_by_restart(row: Operation, loaded: Mapping[str, int]) -> bool:
    """Return if `REPLACED_BY_RESTART` matches. `loaded`: the version of the module that nodes have loaded."""
    is_install = row.way == Way.RESTART and row.action == Action.INSTALL and not row.rollback
    return is_install and loaded.get(row.node, row.version) != row.version


def _turn(row: Operation, fleet: Fleet) -> Turn | None:
    """Return the turn of the operation, None if it only changes files: the server does not have the version, and no late
    operation may still load it."""
    if not changes_server(row):
        return None
    turn = Turn(node=row.node, target=None, returned_at=row.returned_at, restarts=row.way == Way.RESTART)
    if row.fails_back_to:  # it loads and unloads nothing
        return replace(turn, target=fleet.loaded.get(row.node), fails_back_to=row.fails_back_to)
    if row.action == Action.INSTALL and row.activation == Activation.LOAD:
        return replace(turn, target=row.version)
    leaving = row.version if row.action == Action.REMOVE else row.undoes
    if fleet.loaded.get(row.node) != leaving and row.node not in fleet.busy:
        return None
    return turn


def _target(row: Operation, fleet: Fleet) -> int | None:
    """Return the version that the node has loaded after the operation."""
    turn = _turn(row, fleet)
    return fleet.loaded.get(row.node) if turn is None else turn.target


def place_in_shard(name: str, members: Mapping[str, ShardMember]) -> Place:
    """Return the place of a node among these members, which are those of its shard. `above` and `below` are of all levels."""
    above, below = _related(name, members, _masters), _related(name, members, _replicas)
    certain = _related(name, members, partial(_certain_replicas, members))
    member = members[name]
    claimants = {*chain.from_iterable(each.claimants for each in (member, *_of((*above, *below), members)))}
    strange_masters = (each.unmanaged_master for each in (member, *_of(above, members)) if each.unmanaged_master)
    return Place(
        shard=member.shard,
        role=member.role,
        above=above,
        below=below,
        claimed=tuple(each for each in below if each not in certain),
        unmanaged=tuple(dict.fromkeys(chain.from_iterable(each.unmanaged for each in (member, *_of(below, members))))),
        unmanaged_master=next(strange_masters, ""),
        claimants=tuple(sorted(claimants - {name})),
    )


def _related(
    name: str, members: Mapping[str, ShardMember], next_ones: Callable[[ShardMember], Iterable[str]]
) -> tuple[str, ...]:
    """Return the nodes that come after this one, the nearest first. Servers that contradict each other may form a circle."""
    found, seen = [name], {name}
    for each in found:  # it grows
        if each in members:
            new = [other for other in dict.fromkeys(next_ones(members[each])) if other not in seen]
            found += new
            seen.update(new)
    return tuple(found[1:])


def _of(names: Iterable[str], members: Mapping[str, ShardMember]) -> Iterator[ShardMember]:
    return (members[each] for each in names if each in members)


def _members_without_facts(nodes: Collection[str]) -> dict[str, ShardMember]:
    """Return nodes whose agents are of an older release and send no facts: a master counts as a server alone."""
    rows = Node.objects.filter(name__in=nodes, role="master").exclude(name__in=NodeFacts.objects.values("node"))
    return {
        name: ShardMember(node=name, shard=name, role="master", depth=0, replication={}, host="")
        for name in rows.values_list("name", flat=True)
    }


def _masters(member: ShardMember) -> Iterable[str]:
    return (member.master,) if member.master else ()


def _replicas(member: ShardMember) -> Iterable[str]:
    replicas: list[str] = member.replicas
    return replicas


def _certain_replicas(members: Mapping[str, ShardMember], member: ShardMember) -> Iterable[str]:
    """Return the replicas that no node could have invented alone."""
    uncertain = {*member.unlisted, *member.contrary}
    return (each.node for each in _of(member.replicas, members) if not each.doubted and each.node not in uncertain)


def certain_copies(name: str, members: Mapping[str, ShardMember]) -> set[str]:
    """Return the node and the other copies of its shard, as far as the words of two servers each connect them."""

    def neighbours(member: ShardMember) -> Iterable[str]:
        above = (member.master,) if member.master and not member.doubted else ()
        return chain(above, _certain_replicas(members, member))

    return {name, *_related(name, members, neighbours)}


def _use(
    module_name: str,
    name: str,
    nodes: Collection[str],
    calls: Mapping[str, Mapping[str, Any]],
    members: Mapping[str, ShardMember],
) -> Use:
    certain = certain_copies(name, members).intersection(nodes)
    text = in_words(module_name, {each: calls[each] for each in sorted(certain or nodes)})
    if not certain:
        text = f"{text} Only one node says that {some_of(sorted(nodes))} belongs to the shard; decommission or revoke one that lies."
    return Use(text=text, is_certain=bool(certain))


def lately_left(member: ShardMember, now: datetime) -> dict[str, float]:
    """Return the shards that the node has left so lately that other members may not have reported it yet, and when. There are
    several after two failovers, or if a node takes the name of a server and gives it back."""
    former: dict[str, float] = member.former_shards
    return {shard: at for shard, at in former.items() if at + MOVING_SECONDS > now.timestamp()}


def _place(member: ShardMember, members: Mapping[str, ShardMember], heard: Liveness | None, now: datetime) -> Place:
    place = place_in_shard(member.node, members)
    return replace(
        place,
        contrary=tuple(sorted({*chain.from_iterable(each.contrary for each in (member, *_of(place.below, members)))})),
        doubted={
            each.node: each.master for each in (member, *_of(place.above, members)) if each.doubted and each.master
        },
        former_shards=frozenset(lately_left(member, now)),
        host=member.host,
        heard_at=_heard_at(heard),
        is_fresh=is_heard(heard, FRESH_INTERVALS, now),
        not_ready=Reason(member.not_ready) if member.not_ready else None,
        not_ready_message=member.not_ready_message,
    )


def _heard_times(heard: Mapping[str, Liveness]) -> dict[str, datetime]:
    return {name: at for name, each in heard.items() if (at := _heard_at(each))}


def _heard_at(heard: Liveness | None) -> datetime | None:
    """Return when the node has last sent facts. Agents of an older release send none."""
    return None if heard is None else heard.facts_at or heard.last_seen


def is_heard(heard: Liveness | None, intervals: float, now: datetime) -> bool:
    """Return True if the node has sent facts within so many of its intervals."""
    at = _heard_at(heard)
    if heard is None or at is None:
        return False
    return at + timedelta(seconds=max(intervals * heard.interval_seconds, FRESH_SECONDS)) >= now
