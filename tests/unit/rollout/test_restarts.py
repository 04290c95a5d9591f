"""Which servers may be restarted for a module, by what their agents report."""

import pytest

from rollout.domain.restarts import Permission, failover_before, full_sync_expected, seconds_away, why_not_restart
from rollout.messages import Reason

SHUTDOWN = {"restart": "shutdown", "restart_problem": ""}
REPLICA = SHUTDOWN | {"role": "replica"}
ALONE = SHUTDOWN | {"role": "master", "aof_enabled": True, "replicas": [], "replica_count": 0}
ONLINE = [{"address": "10.0.0.2:6379", "state": "online"}, {"address": "10.0.0.3:6379", "state": "online"}]
FAILS_OVER = ALONE | {"replicas": ONLINE, "replica_count": 2, "failover": "sentinel", "min_replicas_to_write": 0}
ALL = Permission(may_interrupt=True, may_discard_data=True)
INTERRUPTS = Permission(may_interrupt=True)


@pytest.mark.parametrize(
    ("server", "master", "permission", "reason"),
    [
        # The agent
        ({}, None, ALL, Reason.RESTART_REQUIRED),
        (ALONE | {"restart_problem": "No."}, None, ALL, Reason.RESTART_REQUIRED),
        (SHUTDOWN | {"restart": "external"}, None, Permission(), None),
        (SHUTDOWN, None, ALL, Reason.RESTART_REQUIRED),  # its role is not known
        # Replicas
        (REPLICA, {"min_replicas_to_write": 0}, Permission(), None),
        (REPLICA, {"min_replicas_to_write": 1, "replicas": ONLINE}, Permission(), None),
        (REPLICA, {"min_replicas_to_write": 2, "replicas": ONLINE}, ALL, Reason.MIN_REPLICAS),
        (REPLICA, {"min_replicas_to_write": 1, "replicas": ONLINE[:1]}, ALL, Reason.MIN_REPLICAS),
        (REPLICA, {"min_replicas_to_write": None}, ALL, Reason.MIN_REPLICAS),
        (REPLICA, None, ALL, Reason.MIN_REPLICAS),
        # Masters
        (ALONE | {"replicas": ONLINE}, None, ALL, Reason.RESTART_REQUIRED),
        (ALONE | {"replica_count": 300}, None, ALL, Reason.RESTART_REQUIRED),
        (FAILS_OVER | {"failover": "none"}, None, ALL, Reason.RESTART_REQUIRED),
        (FAILS_OVER | {"failover": "by magic"}, None, ALL, Reason.RESTART_REQUIRED),
        (FAILS_OVER, None, Permission(), None),
        (FAILS_OVER | {"aof_enabled": False, "save_points": ""}, None, Permission(), None),
        (
            FAILS_OVER | {"replicas": [{"address": "10.0.0.2:6379", "state": "wait_bgsave"}]},
            None,
            ALL,
            Reason.RESTART_REQUIRED,
        ),
        (FAILS_OVER | {"failover_problem": "Each has priority 0."}, None, ALL, Reason.RESTART_REQUIRED),
        (FAILS_OVER | {"failover_problem": ""}, None, ALL, None),
        (FAILS_OVER | {"min_replicas_to_write": 1}, None, ALL, None),
        (FAILS_OVER | {"min_replicas_to_write": 2}, None, ALL, Reason.MIN_REPLICAS),
        (FAILS_OVER | {"min_replicas_to_write": None}, None, ALL, Reason.MIN_REPLICAS),
        (ALONE, None, Permission(may_discard_data=True), Reason.RESTART_REQUIRED),
        (ALONE, None, INTERRUPTS, None),
        (ALONE | {"aof_enabled": False, "save_points": "3600 1"}, None, INTERRUPTS, None),
        (ALONE | {"aof_enabled": False, "save_points": ""}, None, INTERRUPTS, Reason.WOULD_LOSE_DATA),
        (ALONE | {"aof_enabled": None, "save_points": None}, None, INTERRUPTS, Reason.WOULD_LOSE_DATA),
        (ALONE | {"aof_enabled": False, "save_points": ""}, None, ALL, None),
    ],
)
def test_who_may_be_restarted(server, master, permission, reason):
    found = why_not_restart("n1", server, master, permission)
    assert (found[0] if found else None) == reason
    assert found is None or found[1].endswith((".", "true."))


def refused(server, strangers=()):
    found = why_not_restart("n1", server, None, Permission(), strangers)
    assert found
    return found


@pytest.mark.parametrize(("coverage", "whole"), [(True, True), (None, True), (False, False)])
def test_a_cluster_that_needs_all_its_slots(coverage, whole):
    server = ALONE | {"cluster_enabled": True, "full_coverage": coverage, "used_memory": 5_000_000_000}
    reason, message = refused(server)
    assert reason == Reason.RESTART_REQUIRED
    assert ("the whole cluster" in message) is whole
    assert "about 201 seconds" in message


def test_a_replica_without_an_agent_must_not_become_the_master():
    reason, message = refused(FAILS_OVER, ["10.0.0.3:6379"])
    assert reason == Reason.RESTART_REQUIRED
    assert "10.0.0.3:6379 would not get the module" in message


def test_what_comes_before_the_restart():
    assert failover_before(FAILS_OVER) == "sentinel"
    assert failover_before(FAILS_OVER | {"role": "replica"}) == failover_before(ALONE | {"failover": "command"}) == ""


def test_after_which_restart_a_replica_gets_all_data():
    assert full_sync_expected(REPLICA | {"aof_enabled": True})
    assert full_sync_expected(REPLICA)  # it is not known
    assert full_sync_expected(FAILS_OVER)
    assert not full_sync_expected(REPLICA | {"aof_enabled": False})
    assert not full_sync_expected(ALONE)


def test_for_how_long_it_is_away():
    assert seconds_away({}) == 1
    assert seconds_away({"used_memory": 50_000_000}) == 3
