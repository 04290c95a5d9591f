"""Whose turn it is in a shard, and what keeps a server from being changed now.

An install or an upgrade goes to the replicas before their master; a removal and a downgrade go to the master first. So a
master never sends its replicas a command that they lack. A restart always goes to the replicas first: then the master gives
its role to one of them. Only operations that change the server take turns (`Intent.changes_server`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import chain

from rollout.domain.topology.addresses import shown
from rollout.domain.words import some_of
from rollout.messages import Reason


class Block(StrEnum):
    """What keeps a scheduled node from being released."""

    HEARTBEAT = "heartbeat"
    SERVER = "server"
    SHARD_ORDER = "shard_order"
    SHARD_BUSY = "shard_busy"
    HOST_BUSY = "host_busy"
    DOMAIN_BUSY = "domain_busy"
    WINDOW = "window"
    RESTART = "restart"
    WAY_BACK = "way_back"
    HOST_WORKS = "host_works"
    SYNC_LOOP = "sync_loop"


#: Operations of other rollouts, and late ones: the node can do nothing about them.
BUSY = frozenset({Block.SHARD_BUSY, Block.HOST_BUSY, Block.DOMAIN_BUSY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A node's place in its shard and on its host, and the state of its server, by its newest heartbeat.

    `above`: the nodes that it copies, directly or through others, its master first. `below`: the nodes that copy it, directly
    or through others. `claimed`: those below of which one node alone says so. `doubted`: the node and those above, each with
    its master, if that does not bear out that it is copied. `unmanaged` and
    `unmanaged_master` are addresses of such servers that are no nodes of the fleet.
    `claimants`: nodes that say that they are one of these, but are not matched. `contrary`: nodes that a server lists as its
    replicas, but that say something else: a failover that one of them has not reported yet, or a lie.
    `former_shards`: those that it has just left. `heavy_hosts`: the hosts on which its operation makes a server save, load or
    synchronize its data, each with a node that is there. `host` is empty if not known. `domains`: its failure domain
    by label, empty if it does not have the label. `heard_at`: its newest heartbeat with facts. `is_fresh`: that is recent
    enough to act on.
    """

    shard: str
    role: str
    former_shards: frozenset[str] = frozenset()
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    claimed: tuple[str, ...] = ()
    doubted: Mapping[str, str] = field(default_factory=dict)
    unmanaged: tuple[str, ...] = ()
    unmanaged_master: str = ""
    claimants: tuple[str, ...] = ()
    contrary: tuple[str, ...] = ()
    host: str = ""
    heavy_hosts: Mapping[str, str] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)
    heard_at: datetime | None = None
    is_fresh: bool = False
    not_ready: Reason | None = None
    not_ready_message: str = ""

    @property
    def shards(self) -> frozenset[str]:
        """The names of the shards to which the server belongs, as far as its members have reported."""
        return self.former_shards | {self.shard}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A scheduled operation that changes the server. `target`: the version that is loaded after it, None if none is.

    `returned_at`: when the agent returned it, if it did. `restarts`: it restarts the server. `fails_back_to`: it does not, but makes
    this node the master again.
    """

    node: str
    target: int | None
    returned_at: datetime | None = None
    restarts: bool = False
    fails_back_to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Which clients call a module, as sentences. `is_certain`: on a server that is a copy of the shard for certain."""

    text: str
    is_certain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What turns depend on. `places`: of the nodes in question. `loaded`: the version of the module that each node has
    loaded. `unfinished`: the nodes whose operation of this rollout has not ended, each with its target. `busy`: the nodes that have an operation in
    progress, of any rollout, or a late one. `stale`: the nodes whose newest facts are too old to act on. `silent`: those that
    have missed more heartbeats than one. `used`: the use of the module that the operation of a node would unload, on a copy of its
    shard. `unsafe`: why a node's server must not be restarted, as its operation would do, by what is known now. `withheld`: the nodes whose
    agents keep their servers from becoming the master. `busy_shards` and `busy_hosts`: the same by shard and host. `busy_domains`:
    the failure domains with one, by each label that this rollout names, or another one that is at work: so a rollout that
    names none does not leave the domain of another one. `busy_heavily`: by `Place.heavy_hosts`. `at_work`: the nodes whose servers
    save, load or synchronize their data, by host. `outdated`: the nodes whose restart depends on the next heartbeat of their
    master, or of themselves, with that one. `looping`: the nodes that have begun more than one full synchronization lately, and how
    many, by shard."""

    places: Mapping[str, Place] = field(default_factory=dict)
    loaded: Mapping[str, int] = field(default_factory=dict)
    unfinished: Mapping[str, int | None] = field(default_factory=dict)
    busy: Collection[str] = ()
    stale: Collection[str] = ()
    silent: Collection[str] = ()
    used: Mapping[str, Use] = field(default_factory=dict)
    unsafe: Mapping[str, tuple[Reason, str]] = field(default_factory=dict)
    withheld: Collection[str] = ()
    busy_shards: Mapping[str, Collection[str]] = field(default_factory=dict)
    busy_hosts: Mapping[str, Collection[str]] = field(default_factory=dict)
    busy_domains: Mapping[str, Collection[str]] = field(default_factory=dict)
    busy_heavily: Mapping[str, Collection[str]] = field(default_factory=dict)
    at_work: Mapping[str, Collection[str]] = field(default_factory=dict)
    outdated: Mapping[str, str] = field(default_factory=dict)
    looping: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """Why a node is not released now. `text` completes "It waits for". `reason`: recorded with the operation, if any.

    `behind`: nodes that come first. `is_unfit`: waiting does not help, so the node is skipped. `until`: when the wait ends,
    if that is known.
    """

    node: str
    block: Block
    text: str
    reason: Reason | None = None
    behind: tuple[str, ...] = ()
    is_unfit: bool = False
    until: datetime | None = None


def blocked(turn: Turn, fleet: Fleet) -> Blocked | None:
    """Return what keeps the node from being released, None if nothing does."""
    place = fleet.places.get(turn.node)
    if place is None or not place.role:
        text = f"the agent of {turn.node} to report the role of its server"
        return Blocked(node=turn.node, block=Block.SERVER, reason=Reason.SERVER_NOT_READY, text=text)
    # The server last: the time for which a node may wait for it begins when it is the node's turn otherwise.
    return (
        out_of_order(turn, place, fleet)
        or _others(turn, place, fleet)
        or _server(turn, place)
        or _loop(turn, place, fleet)
        or _used(turn, fleet)
        or _unsafe(turn, fleet)
        or _withheld(turn, place, fleet)
        or _heavy(turn, place, fleet)
    )


def together(place: Place, other: Place) -> Block | None:
    """Return why two nodes must not be changed at the same time, None if they may."""
    if place.shards & other.shards:
        return Block.SHARD_BUSY
    if (place.host and place.host == other.host) or place.heavy_hosts.keys() & other.heavy_hosts.keys():
        return Block.HOST_BUSY
    return Block.DOMAIN_BUSY if place.domains != other.domains else None


def master_goes_first(turn: Turn, loaded: Mapping[str, int]) -> bool:
    """Return True if the operation leaves the node with an older version than now, or with none, without a restart: the
    master goes first.

    `loaded`: the version that each node has loaded.
    """
    return not turn.restarts and _is_less(turn, loaded)


def _is_less(turn: Turn, loaded: Mapping[str, int]) -> bool:
    now = loaded.get(turn.node)
    return turn.target is None or (now is not None and now > turn.target)


def is_below(version: int | None, other: int | None) -> bool:
    """Return True if `version` is lower than `other`. None, which is no version, is lower than any."""
    return other is not None and (version is None or version < other)


def out_of_order(turn: Turn, place: Place, fleet: Fleet) -> Blocked | None:
    """Return what the order of the shard's copies has against the node's turn, None if nothing. For plans too."""
    if turn.restarts and _is_less(turn, fleet.loaded):
        return _replicas_to_less(turn, place, fleet)
    usual, reverse = _after_replicas, _after_master
    if master_goes_first(turn, fleet.loaded):
        usual, reverse = reverse, usual
    if block := usual(turn, place, fleet):
        return block
    # A late operation may still change what the node has loaded, and the direction with it.
    if turn.target is not None and turn.node in fleet.busy and reverse(turn, place, fleet):
        return Blocked(node=turn.node, block=Block.SHARD_BUSY, text=f"the late operation on {turn.node} itself")
    return None


def _after_replicas(turn: Turn, place: Place, fleet: Fleet) -> Blocked | None:
    node, unfinished = turn.node, fleet.unfinished
    if never := [each for each in place.below if each in unfinished and is_below(unfinished[each], turn.target)]:
        return _lacks_module(turn, place, never)  # as in a rollback
    lacking = [each for each in place.below if is_below(fleet.loaded.get(each), turn.target)]
    if first := tuple(each for each in lacking if each in unfinished):
        words = "its replica" if len(first) == 1 else "its replicas"
        return Blocked(node=node, block=Block.SHARD_ORDER, text=f"{some_of(first)}, {words}", behind=first)
    if lacking:
        return _lacks_module(turn, place, lacking)
    return _unsure_replicas(turn, place, fleet)


def _unsure_replicas(turn: Turn, place: Place, fleet: Fleet) -> Blocked | None:
    """Return that it is not known which replicas the node has, and what they have loaded."""
    node = turn.node
    if place.contrary:
        replicas = some_of(place.contrary)
        text = (
            f"{replicas} to bear out what {node} says, which lists it as a replica: it copies another server, does not report the "
            "same replication id yet, or its agent is of an older release"
        )
        return Blocked(node=node, block=Block.SERVER, reason=Reason.SERVER_NOT_READY, text=text)
    if stale := [each for each in place.below if each in fleet.stale]:
        # It may have been restarted without the module. One late heartbeat is not worth an event.
        reason = Reason.REPLICA_SILENT if any(each in fleet.silent for each in stale) else None
        text = f"the next heartbeat of {some_of(stale)}, which copies {node}"
        return Blocked(node=node, block=Block.HEARTBEAT, reason=reason, text=text)
    if place.unmanaged:
        text = f"{some_of([*map(shown, place.unmanaged)])}, which copies {node} and is {_no_node(place)}"
        return Blocked(node=node, block=Block.SERVER, reason=Reason.UNMANAGED_REPLICA, text=text)
    return None


def _no_node(place: Place) -> str:
    if not place.claimants:
        return "no node of the fleet"
    verb = "reports" if len(place.claimants) == 1 else "report"
    return (
        f"not matched with a node: {some_of(place.claimants)} {verb} its address or its cluster node id; "
        "`modfleet nodes set NAME --address ADDRESS` says which node it is, and decommissioning one that lies ends its claim"
    )


def _lacks_module(turn: Turn, place: Place, lacking: Sequence[str]) -> Blocked:
    """Return a block that skips the node; but only a wait if one node alone says of each of these replicas that it is one."""
    node, reason = turn.node, Reason.REPLICA_LACKS_MODULE
    if certain := [each for each in lacking if each not in place.claimed]:
        verbs = "copies {} and lacks" if len(certain) == 1 else "copy {} and lack"
        text = f"{some_of(certain)}, which {verbs.format(node)} the module"
        return Blocked(node=node, block=Block.SHARD_ORDER, reason=reason, text=text, is_unfit=True)
    lack, copy, them = ("lacks", "copies", "it") if len(lacking) == 1 else ("lack", "copy", "them")
    text = (
        f"{some_of(lacking)}, which {lack} the module. Only one node says that {some_of(lacking)} {copy} {node}. "
        f"If that is wrong, decommission or revoke {them}"
    )
    return Blocked(node=node, block=Block.SERVER, reason=reason, text=text)


def _unsure_master(turn: Turn, place: Place) -> Blocked | None:
    """Return that it is not known what the master of the node has loaded."""
    node = turn.node
    if place.unmanaged_master:
        text = f"{shown(place.unmanaged_master)}, the master of {node}, which is {_no_node(place)}"
        return Blocked(node=node, block=Block.SERVER, reason=Reason.UNMANAGED_MASTER, text=text)
    if place.doubted:
        replica, master = next(iter(place.doubted.items()))
        text = (
            f"{master} to bear out that it is the master of {replica}, which it does not list, or whose replication id differs. "
            f"Check that the agent of {master} runs and is of this release. If the master of {replica} is another server, "
            "`modfleet nodes set NAME --address ADDRESS` says where a node is"
        )
        unsure = Blocked(node=node, block=Block.SERVER, reason=Reason.SERVER_NOT_READY, text=text)
        return _server(turn, place) or unsure
    return None


def _after_master(turn: Turn, place: Place, fleet: Fleet) -> Blocked | None:
    unfinished = fleet.unfinished
    if block := _unsure_master(turn, place):
        return block
    if never := [each for each in place.above if each in unfinished and is_below(turn.target, unfinished[each])]:
        return _has_module(turn, never)
    having = [each for each in place.above if is_below(turn.target, fleet.loaded.get(each))]
    if first := tuple(each for each in having if each in unfinished):
        return Blocked(node=turn.node, block=Block.SHARD_ORDER, text=f"{some_of(first)}, its master", behind=first)
    return _has_module(turn, having) if having else None


def _replicas_to_less(turn: Turn, place: Place, fleet: Fleet) -> Blocked | None:
    """Of a removal or a downgrade by restarts. Both ends are the same: no copy keeps more than another one."""
    node, unfinished = turn.node, fleet.unfinished
    if block := _unsure_master(turn, place):
        return block
    more = [each for each in place.above if is_below(turn.target, fleet.loaded.get(each))]
    if keeping := [each for each in more if each not in unfinished or is_below(turn.target, unfinished[each])]:
        return _has_module(turn, keeping)
    if unsafe := [each for each in more if each in fleet.unsafe]:
        reason, words = fleet.unsafe[unsafe[0]]
        text = f"{some_of(unsafe)}, its master, which has to follow. {words}".rstrip(".")
        return Blocked(node=node, block=Block.RESTART, reason=reason, text=text)
    if first := tuple(each for each in place.below if each in unfinished):
        words = "its replica" if len(first) == 1 else "its replicas"
        return Blocked(node=node, block=Block.SHARD_ORDER, text=f"{some_of(first)}, {words}", behind=first)
    if having := [each for each in place.below if is_below(turn.target, fleet.loaded.get(each))]:
        text = f"{some_of(having)}, a copy of {node}, which still has the module and would become the master"
        return Blocked(node=node, block=Block.SHARD_ORDER, reason=Reason.MASTER_HAS_MODULE, text=text, is_unfit=True)
    return _unsure_replicas(turn, place, fleet)


def _has_module(turn: Turn, having: Sequence[str]) -> Blocked:
    text = f"{some_of(having)}, the master of {turn.node}, which still has the module"
    reason = Reason.MASTER_HAS_MODULE
    return Blocked(node=turn.node, block=Block.SHARD_ORDER, reason=reason, text=text, is_unfit=True)


def _server(turn: Turn, place: Place) -> Blocked | None:
    is_heard = turn.returned_at is None or (place.heard_at is not None and place.heard_at > turn.returned_at)
    if not place.is_fresh or not is_heard:
        return Blocked(node=turn.node, block=Block.HEARTBEAT, text=f"the next heartbeat of {turn.node}")
    if place.not_ready is not None:
        text = f"the server of {turn.node}: {place.not_ready_message}".rstrip(" .")
        return Blocked(node=turn.node, block=Block.SERVER, reason=place.not_ready, text=text)
    return None


def _used(turn: Turn, fleet: Fleet) -> Blocked | None:
    if (used := fleet.used.get(turn.node)) is None:
        return None
    text = f"its clients to stop. {used.text}".rstrip(".")
    return Blocked(node=turn.node, block=Block.SERVER, reason=Reason.IN_USE, text=text, is_unfit=used.is_certain)


def _unsafe(turn: Turn, fleet: Fleet) -> Blocked | None:
    """Return what a restart waits for since the plan: a failover may be undone, and a replica comes back."""
    if decider := fleet.outdated.get(turn.node):
        text = f"the next heartbeat of {decider}, because a copy of its shard was restarted since the newest one"
        return Blocked(node=turn.node, block=Block.HEARTBEAT, text=text)
    if (unsafe := fleet.unsafe.get(turn.node)) is None:
        return None
    reason, words = unsafe
    what = f"{turn.fails_back_to} can become the master again" if turn.fails_back_to else "its server may be restarted"
    text = f"a moment in which {what}. {words}".rstrip(".")
    is_unfit = reason == Reason.ROLE_CHANGED  # there is nothing to do any more
    return Blocked(node=turn.node, block=Block.RESTART, reason=reason, text=text, is_unfit=is_unfit)


def _withheld(turn: Turn, place: Place, fleet: Fleet) -> Blocked | None:
    """Return that a replica that could take over may not yet. That ends by itself, so it has no reason and no deadline."""
    if not turn.restarts or place.role != "master":
        return None
    if not (kept := [each for each in place.below if each in fleet.withheld]):
        return None
    text = f"the agent of {some_of(kept)} to let the server become the master again"
    return Blocked(node=turn.node, block=Block.RESTART, text=text)


def _heavy(turn: Turn, place: Place, fleet: Fleet) -> Blocked | None:
    """Return which server on the same host saves, loads or synchronizes its data: two could take all memory or disk."""
    for host, there in place.heavy_hosts.items():
        if working := sorted(fleet.at_work.get(host, ())):
            text = f"{some_of(working)} on the host of {there} to end the save, the load or the synchronization of its data"
            return Blocked(node=turn.node, block=Block.HOST_WORKS, reason=Reason.SAVE_UNSAFE, text=text)
    return None


def _loop(turn: Turn, place: Place, fleet: Fleet) -> Blocked | None:
    """Return that a copy of the shard synchronizes again and again: no server is restarted there. A load causes no
    synchronization, and failovers and new replicas cause some."""
    if not turn.restarts:
        return None
    for shard in sorted(place.shards & fleet.looping.keys()):
        node, begun = min(fleet.looping[shard].items())
        text = f"{node}, a copy of its shard, which has begun {begun} full synchronizations within 10 minutes"
        return Blocked(node=turn.node, block=Block.SYNC_LOOP, reason=Reason.SYNC_LOOP, text=text)
    return None


def _others(turn: Turn, place: Place, fleet: Fleet) -> Blocked | None:
    copies = chain.from_iterable(fleet.busy_shards.get(each, ()) for each in place.shards)
    if busy := sorted(set(copies) - {turn.node}):
        text = f"the operation on {some_of(busy)}, another copy of the shard of {turn.node}"
        return Blocked(node=turn.node, block=Block.SHARD_BUSY, text=text)
    if place.host and (busy := sorted(set(fleet.busy_hosts.get(place.host, ())) - {turn.node})):
        text = f"the operation on {some_of(busy)}, which runs on the same host as {turn.node}"
        return Blocked(node=turn.node, block=Block.HOST_BUSY, text=text)
    for host, there in place.heavy_hosts.items():
        if busy := sorted(set(fleet.busy_heavily.get(host, ())) - {turn.node}):
            text = (
                f"the operation on {some_of(busy)}, which makes a server on the host of {there} save or load its data"
            )
            return Blocked(node=turn.node, block=Block.HOST_BUSY, text=text)
    for label, values in fleet.busy_domains.items():
        if busy := sorted(set(values) - {place.domains.get(label, "")}):
            named = [f"{label} {each}" if each else f"no {label}" for each in busy]
            text = f"the operations in {some_of(named)}, another failure domain"
            return Blocked(node=turn.node, block=Block.DOMAIN_BUSY, text=text)
    return None
