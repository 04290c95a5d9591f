"""Plans the order of a shard's copies, and finds nodes that cannot get their turn. The release follows the same order
(`domain.rollout.turns`), by the state of that moment."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain

from django.db.models import Q

from rollout.domain.errors import InvalidRolloutError, UnmanagedReplicaError
from rollout.domain.placement.commands import Skip
from rollout.domain.reasons import WORDS
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.turns import Blocked, Fleet, Place, Turn, master_goes_first, out_of_order
from rollout.domain.topology.addresses import is_replica_address, shown
from rollout.domain.words import some_of
from rollout.messages import Action, Activation, Capability, Reason
from rollout.models import IgnoredReplica, Node, NodeModule, ShardMember
from rollout.planning.nodes import unable_to
from rollout.planning.plan import PlanWarning
from rollout.queries.turns import place_in_shard

#: Servers that share their data with another one.
RELATED = ~Q(master="") | ~Q(unmanaged_master="") | ~Q(unmanaged=[]) | ~Q(replicas=[]) | ~Q(ignored=[])


class Shards:
    """The shards of these members, which are in the order of names."""

    def __init__(self, members: Iterable[ShardMember]) -> None:
        self._members = {each.node: each for each in members if _is_related(each)}

    def __contains__(self, node: str) -> bool:
        """Return True if the node is known to share its data with another server."""
        return node in self._members

    def place(self, node: str) -> Place:
        """Return the place of a node that shares its data with another server."""
        return place_in_shard(node, self._members)

    def shard(self, node: str) -> str:
        member = self._members.get(node)
        return member.shard if member else node

    def is_replica(self, node: str) -> bool:
        member = self._members.get(node)
        return member is not None and bool(member.master or member.unmanaged_master)


class ShardFacts:
    """Reads from the database what the order depends on. The simulation has the same facts in memory."""

    def __init__(self) -> None:
        self._members: list[ShardMember] | None = None

    def members(self) -> Iterable[ShardMember]:
        """Return the members of the fleet's shards, and masters with ignored replicas, in the order of names; one query."""
        if self._members is None:
            self._members = list(ShardMember.objects.filter(RELATED).order_by("node"))
        return self._members

    def loaded(self, module_name: str, nodes: Collection[str]) -> Mapping[str, int]:
        """Return the version of the module that each node has loaded."""
        rows = NodeModule.objects.filter(module_name=module_name, observed=Activation.LOAD, node__in=nodes)
        return dict(rows.values_list("node", "version"))

    def too_old(self, nodes: Collection[str]) -> dict[str, Skip]:
        """Return the nodes whose agents do not check the role of their server before they change it."""
        return unable_to(Capability.CHECK_ROLE, nodes)


class ShardOrder:
    """The order in which a request goes through the shards of `included`; at most one query more than the facts.

    `restarts`: the nodes whose server is restarted. Operations that only put files in place have no order.
    """

    def __init__(
        self,
        request: RolloutRequest,
        included: Sequence[Node],
        facts: ShardFacts,
        restarts: Collection[str] = frozenset(),
    ) -> None:
        self._request, self._facts, self._restarts = request, facts, restarts
        self._changes_servers = request.action == Action.REMOVE or request.activation == Activation.LOAD
        self.shards = Shards(facts.members()) if self._changes_servers else None
        self._places = {node.name: place for place, node in enumerate(included)}
        self._loaded = self._versions_loaded()

    def _versions_loaded(self) -> Mapping[str, int]:
        shards = self.shards
        if shards is None or not (concerned := [name for name in self._places if name in shards]):
            return {}
        places = [shards.place(name) for name in concerned]
        related = {*concerned, *chain.from_iterable((*each.above, *each.below) for each in places)}
        return self._facts.loaded(self._request.module_name, related)

    def shard(self, node: str) -> str:
        """Return the name of its shard, empty if it shares its data with no other server."""
        return self.shards.shard(node) if self.shards is not None and node in self.shards else ""

    def role(self, node: str) -> str:
        """Return `master` or `replica`, empty if it shares its data with no other server."""
        if self.shards is None or node not in self.shards:
            return ""
        return "replica" if self.shards.is_replica(node) else "master"

    def first(self, node: str) -> Sequence[str]:
        """Return the nodes of the request that come before the node: those that copy it, or those that it copies."""
        shards = self.shards
        if shards is None or node not in shards or (turn := self._turn(node)) is None:
            return ()
        place = shards.place(node)
        related = place.above if master_goes_first(turn, self._loaded) else place.below
        return [each for each in related if each in self._places]

    def sorted(self, nodes: Sequence[Node]) -> list[Node]:
        """Return the nodes, each after those that come before it; otherwise in their order."""
        by_name = {node.name: node for node in nodes}
        done: dict[str, Node] = {}
        for node in nodes:
            for name in _depth_first(node.name, self.first, done.keys()):
                done[name] = by_name[name]
        return list(done.values())

    def skips(self) -> dict[str, Skip]:
        """Return the nodes that cannot get their turn, and why.

        Raises: `UnmanagedReplicaError` if one of them has a replica that is no node of the fleet and would lose writes.
        """
        shards = self.shards
        if shards is None:
            return {}
        concerned = [name for name in self._places if name in shards]
        skips = self._facts.too_old(concerned) if concerned else {}
        turns = {name: turn for name in concerned if name not in skips and (turn := self._turn(name)) is not None}
        # As the release will find them when it is the node's turn: those before it have ended.
        loaded, unfinished = dict(self._loaded), {name: turn.target for name, turn in turns.items()}
        fleet = Fleet(loaded=loaded, unfinished=unfinished)
        unmanaged: dict[str, Sequence[str]] = {}
        for name in self._in_order(turns):
            turn, place = turns[name], shards.place(name)
            block = out_of_order(turn, place, fleet)
            del unfinished[name]
            if block is not None and block.reason == Reason.UNMANAGED_REPLICA:
                unmanaged[name] = place.unmanaged
            elif block is not None and block.reason is not None and not _is_a_claim(block, place):
                hint = WORDS[block.reason].hint
                skips[name] = block.reason, f"{name} is skipped, because it would have to wait for {block.text}. {hint}"
                continue
            loaded.pop(name, None)
            loaded |= {} if turn.target is None else {name: turn.target}
        if unmanaged:
            claimants = {*chain.from_iterable(shards.place(name).claimants for name in unmanaged)}
            raise UnmanagedReplicaError(_unmanaged_in_words(unmanaged, sorted(claimants)))
        return skips

    def _in_order(self, nodes: Collection[str]) -> Iterator[str]:
        done: set[str] = set()
        for each in nodes:
            for name in _depth_first(each, self.first, done):
                done.add(name)
                if name in nodes:
                    yield name

    def _turn(self, node: str) -> Turn | None:
        """Return the turn of the node, None if the request changes only files there."""
        request = self._request
        if request.action == Action.INSTALL:
            return Turn(node=node, target=request.version, restarts=node in self._restarts)
        if self._loaded.get(node) != request.version:
            return None
        return Turn(node=node, target=None, restarts=node in self._restarts)


def _is_a_claim(block: Blocked, place: Place) -> bool:
    """Return True if only another node's word blocks the node. It may lie, so the node is not skipped: it waits for some time
    when it is its turn."""
    if block.reason == Reason.UNMANAGED_MASTER:
        return bool(place.claimants)
    return block.reason == Reason.REPLICA_LACKS_MODULE and not block.is_unfit


def _is_related(member: ShardMember) -> bool:
    return bool(member.master or member.unmanaged_master or member.unmanaged or member.replicas)


def refuse_without_domain(label: str, nodes: Sequence[Node]) -> None:
    """Raises: `InvalidRolloutError` if a node does not have the label that names failure domains."""
    lacking = [node.name for node in nodes if label and not {**node.agent_labels, **node.labels}.get(label)]
    if lacking:
        raise InvalidRolloutError(
            f"strategy.domain: {some_of(lacking)} do not have the label {label}. Set it, or name others."
        )


def ignored_replicas_of(request: RolloutRequest, nodes: Collection[Node], facts: ShardFacts) -> tuple[PlanWarning, ...]:
    """Return a warning for each node whose replicas do not get the module, because a person ignores them."""
    if request.action != Action.INSTALL or request.activation != Activation.LOAD:
        return ()
    names = {node.name for node in nodes}
    ignored = {each.node: each.ignored for each in facts.members() if each.ignored and each.node in names}
    if not ignored:
        return ()
    reasons = dict(IgnoredReplica.objects.values_list("address", "reason"))
    return tuple(
        PlanWarning(name=node, reason=Reason.UNMANAGED_REPLICA, message=_ignored_in_words(addresses, reasons))
        for node, addresses in ignored.items()
    )


def _ignored_in_words(ignored: Sequence[str], reasons: Mapping[str, str]) -> str:
    named = [f"{shown(each)} ({reasons[each].rstrip('.')})" if each in reasons else shown(each) for each in ignored]
    return f"These replicas are ignored, and drop the writes of the module's commands: {some_of(named)}."


def _unmanaged_in_words(replicas: Mapping[str, Sequence[str]], claimants: Sequence[str]) -> str:
    # Nodes have reported the addresses, and a person may paste the command into a shell.
    found = (each for addresses in replicas.values() for each in addresses if is_replica_address(each))
    first = next(found, "ADDRESS")
    named = [f"{node} ({some_of([*map(shown, addresses)])})" for node, addresses in replicas.items()]
    if claimants:
        return (
            f"The replicas of these nodes cannot be matched with nodes: {some_of(named)}. These nodes report such an address or "
            f"cluster node id as their own: {some_of(claimants)}. Check them, and set the address of the right one with "
            "`modfleet nodes set NAME --address ADDRESS`."
        )
    return (
        f"These nodes have replicas that are no nodes of the fleet, and would lose writes: {some_of(named)}. Add an agent to "
        f"each replica, or accept it with `modfleet nodes ignore-replica {first} --reason REASON`."
    )


def _depth_first(name: str, first: Callable[[str], Sequence[str]], done: Collection[str]) -> list[str]:
    """Return `name` after all that come before it, without those that are done. A circle, which contradicting servers
    may report, is cut."""
    found: dict[str, None] = {}
    path = [(name, iter(first(name)))]
    on_path = {name}
    while path:
        current, others = path[-1]
        following = next(
            (each for each in others if each not in found and each not in done and each not in on_path), None
        )
        if following is None:
            path.pop()
            on_path.discard(current)
            if current not in done:
                found[current] = None
        else:
            path.append((following, iter(first(following))))
            on_path.add(following)
    return list(found)
