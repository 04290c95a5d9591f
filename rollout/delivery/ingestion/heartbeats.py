"""Heartbeats: when a node was last heard from, and what has changed on it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.db import transaction

from eventstore import Append, Batch, append, begun_by, database_now, load_states, retry_on_conflict
from rollout.delivery.ingestion.batches import all_or_each
from rollout.delivery.ingestion.node_facts import record_facts
from rollout.delivery.ingestion.order import MessageOrder, locked_rows
from rollout.delivery.ingestion.shard_members import record_members
from rollout.delivery.ingestion.verification import Verified, verified_heartbeats
from rollout.domain.node.commands import RecordDuplicate, RecordHeartbeat, RetireOtherKeys
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import actor_of, node_stream
from rollout.domain.node.health import RESTART
from rollout.domain.node.inventory_order import is_earlier
from rollout.domain.node.pace import Change
from rollout.domain.placement.scheduling import LARGEST_GENERATION
from rollout.messages import FORMER_CAPABILITIES, HEARTBEATS, Heartbeat
from rollout.models import Liveness, NodeFacts
from rollout.process.advance import advance_all
from rollout.process.placements import caused_changes, forgetting
from rollout.process.wakes import wake_rollouts_of
from rollout.queries.nodes import KnownNode, configuration_changes, known_nodes
from rollout.queries.rollouts import unfinished_rollouts_of
from rollout.transport import DROPPED

#: A signed heartbeat may be so much older or newer than now, by the two clocks, seconds.
LARGEST_SIGNED_SKEW = 300.0


def record_heartbeats(bodies: Sequence[Any]) -> bool:
    """Record when the nodes were last heard from. Only changes are recorded as events.

    Returns True if a node has started or changed: then there may be commands to publish to it.
    """
    verified = _with_right_clocks(verified_heartbeats(bodies))
    heartbeats = [each.message for each in verified]
    changed = [name for names in all_or_each(_record_all, heartbeats) for name in names]
    _retire_old_keys(_new_keys(verified))
    advance_all(unfinished_rollouts_of(*changed))
    return bool(changed) or any(heartbeat.hello for heartbeat in heartbeats)


def _new_keys(verified: Sequence[Verified[Heartbeat]]) -> dict[str, str]:
    """Return the new key of each node that uses one. A rival's key is not one that the node uses (`rivals`)."""
    new = [each for each in verified if each.is_new_key]
    if not new:
        return {}
    rows = Liveness.objects.filter(node__in={each.message.node for each in new})
    speaking = dict(rows.values_list("node", "incarnation"))
    return {
        each.message.node: each.public_key
        for each in new
        if speaking.get(each.message.node) == each.message.inventory.incarnation
    }


@retry_on_conflict
def _retire_old_keys(used: Mapping[str, str]) -> None:
    """End the other keys of the nodes that have used a new one. `used`: the new key by node."""
    if not used:
        return
    states, changes = load_states([node_stream(name) for name in used], NODE), Batch()
    for name, public_key in used.items():
        command = RetireOtherKeys(node=name, public_key=public_key)
        changes.decide(states[node_stream(name)], NODE, command, begun_by(actor_of(name)))
    append(*changes.appends())


def _with_right_clocks(verified: Sequence[Verified[Heartbeat]]) -> list[Verified[Heartbeat]]:
    """Leave out the signed heartbeats that are so old, or so far ahead, that they may be repetitions. They are counted."""
    now = database_now().timestamp() if any(each.public_key for each in verified) else 0.0
    skews = [(each.message.sent_at or 0.0) - now if each.public_key else 0.0 for each in verified]
    wrong = {
        each.message.node: skew for each, skew in zip(verified, skews, strict=True) if abs(skew) > LARGEST_SIGNED_SKEW
    }
    if wrong:
        _record_skews(wrong)
    for node, skew in wrong.items():
        DROPPED.note(HEARTBEATS, "clock_skew", f"{node} sent it {skew:.0f} s from now")
    return [each for each, skew in zip(verified, skews, strict=True) if abs(skew) <= LARGEST_SIGNED_SKEW]


@transaction.atomic
def _record_skews(skews: Mapping[str, float]) -> None:
    rows = locked_rows(skews)
    for row in rows:
        row.clock_skew_seconds = skews[row.node]
    Liveness.objects.bulk_update(rows, ["clock_skew_seconds"])


@retry_on_conflict
def _record_all(heartbeats: Sequence[Heartbeat]) -> list[str]:
    """Record the heartbeats. Return the names of the nodes that have changed, also those that have another place in their
    shard because another node has changed. Three queries read what is known, whatever the number of nodes, and a fourth one
    if inventories have changed."""
    order = MessageOrder(HEARTBEATS, {heartbeat.node for heartbeat in heartbeats})
    newest = _newest(heartbeats, order)
    known = known_nodes({each.node for each in heartbeats})
    newest = {name: known[name].completed(heartbeat) for name, heartbeat in newest.items()}
    news = [_news(known[name], heartbeat, order) for name, heartbeat in newest.items()]
    unlike = _with_processes([each for each in news if each.changes or each.lost], newest)
    doubles = _doubles(known, order)
    states = load_states([node_stream(name) for name in {*doubles, *(each.node for each in unlike)}], NODE)
    changes = Batch()
    commands: list[RecordHeartbeat | RecordDuplicate] = [*unlike, *doubles.values()]
    for command in commands:
        changes.decide(states[node_stream(command.node)], NODE, command, begun_by(actor_of(command.node)))
    appends = changes.appends()
    # In logs that are older than `placement.forgotten.v1`, nothing is forgotten when a node leaves.
    rejoining = [each.node for each in unlike if each.hello and known[each.node].has_left]
    with transaction.atomic():
        # Before the rows of Liveness are locked.
        append(*appends, *(_forgotten(rejoining, appends) if rejoining else ()))
        _record_liveness(newest.values(), order)
        record_facts(newest.values(), order.now)
        moved = record_members(newest.values(), order.now)
        wake_rollouts_of(moved)
    order.count_rejected()
    changed = {each.stream for each in appends}
    return sorted({*moved, *(name for name in newest if node_stream(name) in changed)})


def _news(known: KnownNode, heartbeat: Heartbeat, order: MessageOrder) -> RecordHeartbeat:
    """Return the command that records what is new in the heartbeat, without the changes that must wait."""
    changes, lost = known.changes(heartbeat), frozenset[tuple[str, int]]()
    if known.is_member:
        at_once = {Change.CONTACT} if known.degradation else {Change.CONTACT, Change.HEALTH}
        waiting = {each for each in changes - at_once if order.must_wait(heartbeat.node, each)}
        if Change.INVENTORY in waiting:
            lost = known.lost(heartbeat.inventory)
        changes -= waiting
        for each in changes:
            order.count_change(heartbeat.node, each)
    return RecordHeartbeat(
        node=heartbeat.node,
        hello=heartbeat.hello,
        profile=heartbeat.profile,
        inventory=heartbeat.inventory,
        changes=changes,
        lost=lost,
        degradation=known.degradation_by(heartbeat),
        configuration_changes=configuration_changes(heartbeat),
    )


def _with_processes(news: list[RecordHeartbeat], newest: Mapping[str, Heartbeat]) -> list[RecordHeartbeat]:
    """Return the commands with `same_process`. One query, if an inventory has changed."""
    run_ids = {
        each.node: facts.run_id
        for each in news
        if (each.lost or Change.INVENTORY in each.changes)
        and (facts := newest[each.node].facts) is not None
        and facts.run_id
        and not facts.problem  # else the loaded modules are not known
    }
    if not run_ids:
        return news
    known = dict(NodeFacts.objects.filter(node__in=run_ids).values_list("node", "run_id"))
    return [
        replace(each, same_process=True, listed=_listed(newest[each.node]))
        if each.node in run_ids and run_ids[each.node] == known.get(each.node)
        else each
        for each in news
    ]


def _listed(heartbeat: Heartbeat) -> frozenset[tuple[str, int]]:
    """Return name and version of the modules that Modfleet has installed and the server has loaded."""
    modules = heartbeat.facts.modules if heartbeat.facts else ()
    return frozenset((each.name, each.version) for each in modules if each.ours)


def _forgotten(names: Sequence[str], joins: Sequence[Append]) -> list[Append]:
    """Return what nodes forget because they have joined again."""
    joined = {each.stream: each.leads_to for each in joins}
    return caused_changes(
        (each, joined[node_stream(each.node)]) for each in forgetting(*names) if node_stream(each.node) in joined
    )


def _doubles(known: Mapping[str, KnownNode], order: MessageOrder) -> dict[str, RecordDuplicate]:
    """Return the commands for nodes for which it has changed whether two agents are heard."""
    found: dict[str, RecordDuplicate] = {}
    for name, node in known.items():
        is_duplicate = order.is_duplicate(name)
        if node.row is None or is_duplicate is None or node.row.duplicate == is_duplicate:
            continue
        if is_duplicate or not order.must_wait(name, Change.DUPLICATE):
            order.count_change(name, Change.DUPLICATE)
            found[name] = RecordDuplicate(node=name, is_duplicate=is_duplicate)
    return found


def _newest(heartbeats: Sequence[Heartbeat], order: MessageOrder) -> dict[str, Heartbeat]:
    """Return the newest heartbeat of each node, as a hello if one of them was, in the order of names.

    Nodes without a newer heartbeat are left out.
    """
    newest: dict[str, Heartbeat] = {}
    for heartbeat in heartbeats:
        if not order.accepts(heartbeat.node, heartbeat.inventory, hello=heartbeat.hello, host=heartbeat.host):
            continue
        before = newest.get(heartbeat.node, heartbeat)
        latest = before if is_earlier(heartbeat.inventory, before.inventory.sequence) else heartbeat
        hello = heartbeat.hello or before.hello or heartbeat.node in order.restarted
        newest[heartbeat.node] = replace(latest, hello=hello)
    return dict(sorted(newest.items()))


def _record_liveness(heartbeats: Collection[Heartbeat], order: MessageOrder) -> None:
    """Write the rows of `heartbeats`, which are in the order of names.

    Missing rows are created first, in the same order: two workers that insert the same rows in different orders would
    wait for each other.
    """
    if missing := [heartbeat for heartbeat in heartbeats if not order.has_row(heartbeat.node)]:
        Liveness.objects.bulk_create((_row(heartbeat, order) for heartbeat in missing), ignore_conflicts=True)
    names = {heartbeat.node for heartbeat in heartbeats}
    rows = locked_rows(names | order.doubted | order.rivals.heard.keys() | order.changed)
    order.refresh(rows)
    order.rivals.save(rows)
    order.save_paces(row for row in rows if row.node not in names)
    for moments in sorted({_moments(each) for each in heartbeats}):
        Liveness.objects.bulk_create(
            (_row(each, order) for each in heartbeats if _moments(each) == moments),
            update_conflicts=True,
            unique_fields=["node"],
            update_fields=[*_COLUMNS, *moments],
        )
    if order.doubted:
        Liveness.objects.filter(node__in=order.doubted).update(doubts=["counter"])


#: The columns that each heartbeat writes.
_COLUMNS = (
    "last_seen",
    "interval_seconds",
    "generations",
    "incarnation",
    "counter",
    "former",
    "protocol",
    "capabilities",
    "agent_version",
    "host",
    "clock_skew_seconds",
    "doubts",
    "pace",
)


def _moments(heartbeat: Heartbeat) -> tuple[str, ...]:
    """Return the columns that say when the node last sent such a heartbeat."""
    facts = heartbeat.facts
    is_such = {
        "hello_at": heartbeat.hello,
        "facts_at": facts is not None,
        "restarting_at": facts is not None and facts.maintenance == RESTART,
    }
    return tuple(name for name, is_it in is_such.items() if is_it)


def _row(heartbeat: Heartbeat, order: MessageOrder) -> Liveness:
    heard = order.heard[heartbeat.node]
    generations = {name: number for name, number in heartbeat.generations.items() if number <= LARGEST_GENERATION}
    doubts = [] if len(generations) == len(heartbeat.generations) else ["generations"]
    waiting = {each for each in Change if order.must_wait(heartbeat.node, each)}
    doubts += ["contact"] if Change.CONTACT in waiting else []
    doubts += ["changes"] if waiting - {Change.CONTACT} else []
    return Liveness(
        node=heartbeat.node,
        last_seen=order.now,
        interval_seconds=heartbeat.interval_seconds,
        generations=generations,
        incarnation=heard.incarnation,
        counter=heard.counter,
        former=list(heard.former),
        protocol=heartbeat.protocol,
        capabilities=sorted(FORMER_CAPABILITIES if heartbeat.capabilities is None else heartbeat.capabilities),
        agent_version=heartbeat.agent_version,
        host=heartbeat.host,
        clock_skew_seconds=None if heartbeat.sent_at is None else heartbeat.sent_at - order.now.timestamp(),
        doubts=doubts,
        pace=order.pace(heartbeat.node),
        **dict.fromkeys(_moments(heartbeat), order.now),
    )
