"""Whose turn it is in a shard: replicas before their master, one copy at a time, and only servers that are ready."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rollout.domain.rollout.releasable import (
    CHANGED_SECONDS,
    NOTED_AGAIN_SECONDS,
    POLL_SECONDS,
    WAIT_ENDED_SECONDS,
    Candidate,
    Releasable,
    Waiting,
)
from rollout.domain.rollout.turns import Block, Fleet, Place, Turn, blocked
from rollout.domain.strategy import Strategy
from rollout.messages import Reason

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOP = Place(shard="m", role="master", below=("r1", "r2", "s1"), heard_at=NOW, is_fresh=True)
COPY = Place(shard="m", role="replica", above=("m",), heard_at=NOW, is_fresh=True)
ALONE = Place(shard="a", role="master", heard_at=NOW, is_fresh=True)
SHARD = {"m": TOP, "r1": replace(COPY, below=("s1",)), "r2": COPY, "s1": replace(COPY, above=("r1", "m")), "a": ALONE}


def fleet(*, loaded=None, unfinished=(), target=2, places=None, **more):
    """`target`: of all unfinished operations."""
    unfinished = dict.fromkeys(unfinished, target)
    return Fleet(places=SHARD | (places or {}), loaded=loaded or {}, unfinished=unfinished, **more)


def why(node, known, *, target=2, **more):
    found = blocked(Turn(node=node, target=target, **more), known)
    return None if found is None else (found.block, found.reason)


@pytest.mark.parametrize(
    ("node", "unfinished", "loaded", "expected"),
    [
        ("s1", "m r1 r2 s1", {}, None),
        ("r1", "m r1 r2 s1", {}, (Block.SHARD_ORDER, None)),
        ("r1", "m r1 r2", {"s1": 2}, None),
        ("m", "m r1", {"r2": 2, "s1": 2}, (Block.SHARD_ORDER, None)),
        ("m", "m s1", {"r1": 2, "r2": 2}, (Block.SHARD_ORDER, None)),
        ("m", "m", {"r1": 2, "r2": 2, "s1": 2}, None),
        ("m", "m", {"r1": 3, "r2": 2, "s1": 2}, None),
        ("m", "m", {"r1": 2, "r2": 2}, (Block.SHARD_ORDER, Reason.REPLICA_LACKS_MODULE)),
        ("m", "m", {"r1": 2, "r2": 1, "s1": 2}, (Block.SHARD_ORDER, Reason.REPLICA_LACKS_MODULE)),
        ("m", "m", {"r1": 2, "s1": 2}, (Block.SHARD_ORDER, Reason.REPLICA_LACKS_MODULE)),
    ],
)
def test_an_install_and_an_upgrade_go_to_the_replicas_first(node, unfinished, loaded, expected):
    known = fleet(unfinished=unfinished.split(), loaded={"m": 1} | loaded)
    assert why(node, known) == expected


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize(
    ("node", "unfinished", "loaded", "expected"),
    [
        ("s1", "m r1 r2 s1", "m r1 r2 s1", None),
        ("r1", "m r1 r2 s1", "m r1 r2 s1", (Block.SHARD_ORDER, None)),
        ("r1", "m r1 r2", "m r1 r2", None),
        ("m", "m r1", "m r1", (Block.SHARD_ORDER, None)),
        ("m", "m", "m", None),
        # The master keeps it, or a replica does, which would become the master.
        ("r2", "r2", "m r1 r2 s1", (Block.SHARD_ORDER, Reason.MASTER_HAS_MODULE)),
        ("m", "m", "m r2", (Block.SHARD_ORDER, Reason.MASTER_HAS_MODULE)),
    ],
)
def test_a_removal_and_a_downgrade_by_restarts_go_to_the_replicas_first(node, unfinished, loaded, expected, target):
    have = dict.fromkeys(loaded.split(), 2) | (
        {} if target is None else dict.fromkeys(set(SHARD) - set(loaded.split()), 1)
    )
    known = fleet(unfinished=unfinished.split(), loaded=have, target=target)
    assert why(node, known, target=target, restarts=True) == expected


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize(
    ("node", "unfinished", "loaded", "expected"),
    [
        ("m", "m r1 r2 s1", {}, None),
        ("r1", "m r1 r2 s1", {}, (Block.SHARD_ORDER, None)),
        ("r1", "r1 r2 s1", {"m": 1}, None),
        ("s1", "r1 r2 s1", {"m": 1}, (Block.SHARD_ORDER, None)),
        ("s1", "m s1", {"r1": 1}, (Block.SHARD_ORDER, None)),
        ("s1", "s1", {"r1": 1}, (Block.SHARD_ORDER, Reason.MASTER_HAS_MODULE)),
        ("s1", "s1", {"m": 1, "r1": 1}, None),
        ("r2", "r2", {"m": 2}, (Block.SHARD_ORDER, Reason.MASTER_HAS_MODULE)),
    ],
)
def test_a_removal_and_a_downgrade_go_to_the_master_first(node, unfinished, loaded, expected, target):
    everywhere = dict.fromkeys(("m", "r1", "r2", "s1"), 2)
    without = {name: version for name, version in (everywhere | loaded).items() if target or version != 1}
    assert why(node, fleet(unfinished=unfinished.split(), target=target, loaded=without), target=target) == expected


def test_a_replica_gets_less_by_a_restart_only_if_its_master_can_follow():
    """Otherwise it would lack what its master writes."""
    unsafe = {"m": (Reason.MIN_REPLICAS, "It has 1 good replica.")}
    known = fleet(unfinished=("m", "r1", "r2", "s1"), loaded=dict.fromkeys(SHARD, 2), target=1)
    assert why("r2", known, target=1, restarts=True) is None
    assert why("r2", replace(known, unsafe=unsafe), target=1, restarts=True) == (Block.RESTART, Reason.MIN_REPLICAS)


def test_nodes_that_a_rollback_would_leave_in_the_wrong_order_do_not_wait_for_each_other():
    """The master had 3 and its replica 1; now both have 2."""
    places = {"m": replace(TOP, below=("r2",))}
    known = replace(fleet(places=places, loaded={"m": 2, "r2": 2}), unfinished={"m": 3, "r2": 1})
    for node, target, reason in (("m", 3, Reason.REPLICA_LACKS_MODULE), ("r2", 1, Reason.MASTER_HAS_MODULE)):
        found = blocked(Turn(node=node, target=target), known)
        assert found
        assert (found.reason, found.is_unfit) == (reason, True)


def test_a_master_and_a_replica_with_a_newer_version_do_not_wait_for_each_other():
    """As after a server with another version has joined the shard."""
    known = fleet(unfinished=("m", "r1", "r2", "s1"), target=1, loaded={"r1": 9, "r2": 9, "s1": 9})
    assert [why(node, known, target=1) for node in ("m", "r2", "s1")] == [None, None, (Block.SHARD_ORDER, None)]


@pytest.mark.parametrize("loaded", [{"m": 3, "r1": 1, "r2": 2, "s1": 2}, {"m": 1, "r1": 2, "r2": 2, "s1": 2, "x": 3}])
def test_a_late_operation_may_change_the_direction(loaded):
    """What is a downgrade now may be an upgrade once the late operation has ended, and the other way round."""
    places = {"m": replace(TOP, above=("x",))}
    assert why("m", fleet(places=places, loaded=loaded)) is None
    assert why("m", fleet(places=places, loaded=loaded, busy={"r1"})) is None
    assert why("m", fleet(places=places, loaded=loaded, busy={"m"})) == (Block.SHARD_BUSY, None)
    assert why("m", fleet(places=places, loaded={"m": 3}, busy={"m"}), target=None) is None


def test_a_replica_that_is_no_node_of_the_fleet():
    known = fleet(places={"a": replace(ALONE, unmanaged=("10.0.0.9:6379",))}, loaded={"a": 2})
    assert why("a", known) == (Block.SERVER, Reason.UNMANAGED_REPLICA)
    assert why("a", known, target=None) is None  # it keeps the module, and loses nothing


def test_a_master_that_is_no_node_of_the_fleet():
    known = fleet(places={"a": replace(COPY, shard="x", above=(), unmanaged_master="10.0.0.9:6379")}, loaded={"a": 2})
    assert why("a", known) is None  # it gets the module before its master
    assert why("a", known, target=None) == (Block.SERVER, Reason.UNMANAGED_MASTER)


def test_a_server_whose_role_is_not_known():
    assert why("a", fleet(places={"a": replace(ALONE, role="")})) == (Block.SERVER, Reason.SERVER_NOT_READY)
    assert why("unheard", fleet()) == (Block.SERVER, Reason.SERVER_NOT_READY)


def test_an_old_heartbeat_says_nothing():
    assert why("a", fleet(places={"a": replace(ALONE, is_fresh=False)})) == (Block.HEARTBEAT, None)


def test_after_a_return_a_newer_heartbeat_is_needed():
    assert why("a", fleet(), returned_at=NOW) == (Block.HEARTBEAT, None)
    assert why("a", fleet(), returned_at=NOW - timedelta(seconds=1)) is None


@pytest.mark.parametrize("reason", [Reason.SERVER_NOT_READY, Reason.BACKUP_RUNNING])
def test_a_server_that_is_not_ready(reason):
    place = replace(ALONE, not_ready=reason, not_ready_message="It loads.")
    found = blocked(Turn(node="a", target=1), fleet(places={"a": place}))
    assert found
    assert (found.reason, found.text) == (reason, "the server of a: It loads")


def test_one_copy_of_a_shard_one_node_of_a_host_and_one_domain_at_a_time():
    here = replace(ALONE, host="h", domains={"zone": "z1"})
    places = {"a": here}
    assert why("r2", fleet(busy_shards={"m": {"r2", "s1"}})) == (Block.SHARD_BUSY, None)
    assert why("r2", fleet(busy_shards={"m": {"r2"}})) is None  # another module on the same node
    assert why("a", fleet(places=places, busy_hosts={"h": {"b"}})) == (Block.HOST_BUSY, None)
    assert why("a", fleet(places=places, busy_hosts={"": {"b"}, "other": {"c"}})) is None
    assert why("a", fleet(places=places, busy_domains={"zone": {"z2"}})) == (Block.DOMAIN_BUSY, None)
    assert why("a", fleet(places=places, busy_domains={"zone": {"z1", "z2"}})) == (Block.DOMAIN_BUSY, None)
    assert why("a", fleet(places=places, busy_domains={"zone": {"z1"}})) is None


# --- What is ready, and what waits


def look(candidates, known, limit=10, *, now=NOW, **strategy):
    found = Releasable(Strategy(**strategy), now, limit)
    found.look_at(candidates, known)
    return found


def candidate(node, target=2, **more):
    return Candidate(node=node, turn=Turn(node=node, target=target), **more)


def test_of_one_shard_and_of_one_host_one_is_ready():
    places = {name: replace(ALONE, shard=name, host="h") for name in ("a", "b")}
    found = look([candidate("r2"), candidate("s1"), candidate("a"), candidate("b")], fleet(places=places))
    assert [each.node for each in found.ready] == ["r2", "a"]
    assert [(each.node, each.block) for each in found.blocked] == [
        ("s1", Block.SHARD_BUSY),
        ("b", Block.HOST_BUSY),
    ]
    assert found.wake_at is None  # the end of the operation that comes first leads to the next step


def test_files_need_no_turn():
    found = look([Candidate(node="m"), Candidate(node="r1")], Fleet())
    assert [each.node for each in found.ready] == ["m", "r1"]


def test_the_limit_counts_only_what_is_ready():
    found = look([candidate("m"), candidate("s1"), candidate("a"), candidate("r2")], fleet(unfinished=("r1",)), limit=2)
    assert [each.node for each in found.ready] == ["s1", "a"]


def test_nodes_that_wait_for_others_are_looked_at_again_soon():
    assert look([candidate("r2")], fleet(busy_shards={"m": {"s1"}})).wake_at == NOW + timedelta(seconds=POLL_SECONDS)
    assert look([candidate("m")], fleet(unfinished=("r1",))).wake_at is None


LOADING = {"a": replace(ALONE, not_ready=Reason.SERVER_NOT_READY, not_ready_message="It loads.")}


def test_a_wait_is_recorded_once_then_with_its_duration_and_ends():
    waits = fleet(places=LOADING)
    first = look([candidate("a")], waits)
    expected = Waiting(node="a", reason=Reason.SERVER_NOT_READY, message="It waits for the server of a: It loads.")
    assert (first.waits, first.is_waiting) == ([expected], True)
    noted = candidate("a", reason=Reason.SERVER_NOT_READY, waiting_since=NOW, noted_at=NOW)
    quiet = look([noted], waits, now=NOW + timedelta(seconds=NOTED_AGAIN_SECONDS - 1))
    assert (quiet.waits, quiet.unfit) == ([], [])
    assert quiet.wake_at == NOW + timedelta(seconds=NOTED_AGAIN_SECONDS)
    (again,) = look([noted], waits, now=NOW + timedelta(seconds=NOTED_AGAIN_SECONDS)).waits
    assert again.message == "It waits for the server of a: It loads. It has waited for 10 minutes."
    (unfit,) = look([noted], waits, now=NOW + timedelta(seconds=60), ready_deadline_seconds=60.0).unfit
    assert unfit.message == "a waited for 1 minute for the server of a: It loads."


def test_the_time_of_a_wait_counts_over_all_reasons():
    noted = candidate("a", reason=Reason.BACKUP_RUNNING, waiting_since=NOW - timedelta(minutes=59), noted_at=NOW)
    quiet = look([noted], fleet(places=LOADING))  # the reason may change with each heartbeat
    assert (quiet.waits, quiet.wake_at) == ([], NOW + timedelta(seconds=CHANGED_SECONDS))
    (again,) = look([noted], fleet(places=LOADING), now=NOW + timedelta(seconds=CHANGED_SECONDS)).waits
    assert again.message.endswith("It has waited for 59 minutes.")
    (unfit,) = look([noted], fleet(places=LOADING), now=NOW + timedelta(minutes=1)).unfit
    assert unfit.reason == Reason.SERVER_NOT_READY


def test_a_wait_that_was_interrupted_begins_again():
    """As while the fleet was frozen, or the rollout was paused."""
    noted = candidate("a", reason=Reason.BACKUP_RUNNING, waiting_since=NOW - timedelta(days=1), noted_at=NOW)
    found = look([noted], fleet(places=LOADING), now=NOW + timedelta(seconds=WAIT_ENDED_SECONDS))
    assert (len(found.waits), found.unfit) == (1, [])


def test_the_wait_for_the_server_begins_when_no_other_node_is_in_the_way():
    found = look([candidate("a")], fleet(places=LOADING, busy_shards={"a": {"b"}}))
    assert ([each.block for each in found.blocked], found.waits) == ([Block.SHARD_BUSY], [])


RETURNED = NOW - timedelta(seconds=1)


@pytest.mark.parametrize(("releases", "pause"), [(1, 0), (2, 10), (3, 20), (6, 160), (7, 300), (99, 300)])
def test_the_pause_after_a_return_doubles(releases, pause):
    turn = Turn(node="a", target=2, returned_at=RETURNED)
    returned = Candidate(node="a", turn=turn, releases=releases, waiting_since=RETURNED, noted_at=RETURNED)
    found = look([returned], fleet())
    until = RETURNED + timedelta(seconds=pause)
    assert (bool(found.ready), found.is_waiting) == (not pause, True)
    assert [(each.block, each.until) for each in found.blocked] == ([(Block.SERVER, until)] if pause else [])
    assert [each.node for each in look([returned], fleet(), now=until).ready] == ["a"]


def test_a_node_whose_agent_returns_each_release_is_skipped():
    turn = Turn(node="a", target=2, returned_at=RETURNED)
    since = RETURNED - timedelta(hours=1)
    returned = Candidate(
        node="a",
        turn=turn,
        releases=14,
        waiting_since=since,
        noted_at=RETURNED,
        reason="role_changed",
        message="It is a master now.",
    )
    (unfit,) = look([returned], fleet()).unfit
    assert (unfit.reason, unfit.message) == (
        Reason.ROLE_CHANGED,
        "a waited for 60 minutes for its server. The agent has returned each of 14 releases: It is a master now.",
    )


@pytest.mark.parametrize("known", [fleet(), fleet(places={"a": replace(ALONE, is_fresh=False)})])
def test_after_a_wait_for_the_server_the_node_counts_as_waiting_no_longer_than_the_wait_may_last(known):
    noted = candidate("a", waiting_since=NOW)
    soon, late = NOW + timedelta(seconds=59), NOW + timedelta(seconds=60)
    assert look([noted], known, now=soon, ready_deadline_seconds=60.0).is_waiting
    assert not look([noted], known, now=late, ready_deadline_seconds=60.0).is_waiting


def test_a_node_that_min_healthy_keeps_back_after_its_wait_is_looked_at_again():
    found = look([candidate("a", waiting_since=NOW)], fleet(), ready_deadline_seconds=60.0)
    assert found.wake_at == NOW + timedelta(seconds=60)


def test_a_node_for_which_no_wait_helps_is_unfit_at_once():
    (unfit,) = look([candidate("m")], fleet(loaded={"r1": 2, "s1": 2})).unfit
    assert (unfit.reason, unfit.message) == (
        Reason.REPLICA_LACKS_MODULE,
        "m waited for r2, which copies m and lacks the module.",
    )
