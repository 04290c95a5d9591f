"""The judgement of a server's health, from samples and statistics."""

import pytest

from rollout.agent.server.health import (
    LINK_SECONDS,
    Sample,
    fault,
    more_failed_calls,
    sample_from,
    statistics_from,
)
from rollout.messages import Reason, ServerStatistics

LONG = LINK_SECONDS + 1
REPLICA = {"run_id": "r", "role": "slave", "master_link_status": "up", "unexpected_error_replies": "3"}


def sample(**more):
    return Sample(run_id="r", **more)


def statistics(calls, failed):
    return ServerStatistics(calls=calls, failed_calls=failed)


def test_a_replica():
    found = sample_from(REPLICA | {"loading": "0", "master_sync_in_progress": "0"})
    assert found == sample(link_is_up=True, error_replies=3, writes_aof=True)
    assert found.is_ready_as(found)


def test_a_master_has_no_link():
    assert sample_from({"run_id": "r", "role": "master", "master_link_status": "down"}).link_is_up is None


@pytest.mark.parametrize(
    "info", [{"loading": "1"}, {"async_loading": "1"}, {"master_sync_in_progress": "1"}, {"master_link_status": "down"}]
)
def test_a_server_that_is_not_ready(info):
    assert not sample_from(REPLICA | info).is_ready_as(sample_from(REPLICA))


def test_a_link_that_was_down_before_is_not_waited_for():
    down = sample_from(REPLICA | {"master_link_status": "down"})
    assert down.is_ready_as(down)


def test_lost_writes():
    assert fault(sample(error_replies=3), sample(error_replies=3)) is None
    found = fault(sample(error_replies=3), sample(error_replies=5))
    assert found is not None
    assert found.reason is Reason.ERROR_REPLIES
    assert "from 3 to 5" in found.message


def test_lost_writes_are_unknown_without_the_counter():
    assert fault(sample(), sample(error_replies=5)) is None


@pytest.mark.parametrize(
    ("before", "now", "is_fault"),
    [
        (True, {"link_down_seconds": LONG}, True),
        (True, {"link_down_seconds": LINK_SECONDS}, False),
        (True, {"link_down_seconds": LONG, "is_synchronizing": True}, False),
        (False, {"link_down_seconds": LONG}, False),
    ],
    ids=["down", "not for long", "synchronizes", "was down before"],
)
def test_a_link(before, now, is_fault):
    found = fault(sample(link_is_up=before), sample(link_is_up=False, **now))
    assert (found is not None and found.reason) == (is_fault and Reason.LINK_DOWN)


@pytest.mark.parametrize(
    ("before", "after", "is_worse"),
    [
        ((200, 4), (100, 5), True),
        ((200, 4), (100, 4), False),
        ((100, 0), (100, 1), True),
        ((99, 0), (100, 99), False),
        ((100, 0), (99, 99), False),
        ((None, None), (100, 99), False),
        ((100, 0), (None, None), False),
    ],
)
def test_shares_of_failed_calls(before, after, is_worse):
    assert bool(more_failed_calls(statistics(*before), statistics(*after))) is is_worse


def test_the_statistics_of_a_module():
    info = {
        "used_memory": "10",
        "evicted_keys": "1",
        "rejected_connections": "2",
        "cmdstat_greet.hello": "calls=5,usec=1,usec_per_call=0.2,rejected_calls=2,failed_calls=1",
        "cmdstat_greet.box|open": "calls=3,usec=1,usec_per_call=0.2,rejected_calls=0,failed_calls=0",
        "cmdstat_get": "calls=100,usec=1,usec_per_call=0.2,rejected_calls=9,failed_calls=9",
        "latency_percentiles_usec_greet.hello": "p50=1.003,p99=2.007,p99.9=9.1",
        "latency_percentiles_usec_greet.box|open": "p50=1.003,p99=4.015,p99.9=9.1",
        "latency_percentiles_usec_get": "p50=1.003,p99=99.1,p99.9=99.2",
    }
    assert statistics_from(info, ["GREET.HELLO", "greet.box"]) == ServerStatistics(
        calls=10, failed_calls=3, p99_usec=4.015, used_memory=10, evicted_keys=1, rejected_connections=2
    )


def test_unknown_statistics():
    assert statistics_from({"latency_percentiles_usec_a": "p50=1.0"}, ["a"]) == ServerStatistics(
        calls=0, failed_calls=0
    )
    assert statistics_from({}, []) == ServerStatistics()


@pytest.mark.parametrize("number", ["-1", "1" * 19, "many", ""])
def test_a_number_that_no_report_may_have_is_unknown(number):
    info = {"used_memory": number, "unexpected_error_replies": number, "latency_percentiles_usec_a": f"p99=-{number}"}
    assert statistics_from(info, ["a"]) == ServerStatistics(calls=0, failed_calls=0)
    assert sample_from(info).error_replies is None
