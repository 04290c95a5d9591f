"""The order of a shard while some of its servers have reported a failover, and others have not."""

from typing import Any

import pytest

from rollout.messages import Phase, Reason
from rollout.process.advance import advance
from tests.recorded_fleet import installed, inventory, join, operation, phases, rollout, start, upload
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, replica_of, say

pytestmark = pytest.mark.django_db

ALL_AT_ONCE: dict[str, Any] = {"canary": 0, "max_parallel": "100%", "max_failures": "100%"}


def test_the_new_master_waits_for_the_former_one():
    """It lists the former master as its replica, which has not reported that yet."""
    upload()
    join("old", "new")
    say(beat("old", master_of("a:2", addresses=("a:1",))), beat("new", replica_of("a:1", addresses=("a:2",))))
    uid = start(careful=ALL_AT_ONCE)
    assert phases(uid) == {"new": "queued", "old": "scheduled"}
    say(beat("old", master_of(addresses=("a:1",))), beat("new", master_of("a:1", addresses=("a:2",))))
    answer(uid, "new", phase=Phase.SCHEDULED, reason=Reason.ROLE_CHANGED, inventory=inventory())
    say(beat("old", master_of(addresses=("a:1",))), beat("new", master_of("a:1", addresses=("a:2",))))
    advance(uid)
    assert phases(uid)["new"] == "scheduled"
    say(beat("old", replica_of("a:2", addresses=("a:1",))))
    advance(uid)
    answer(uid, "old", inventory=inventory(installed()))
    say(
        beat("old", replica_of("a:2", addresses=("a:1",)), modules=[installed()]),
        beat("new", master_of("a:1", addresses=("a:2",))),
    )
    advance(uid)
    answer(uid, "new", inventory=inventory(installed()))
    assert (operation(uid, "new").phase, rollout(uid).phase) == ("succeeded", "succeeded")
