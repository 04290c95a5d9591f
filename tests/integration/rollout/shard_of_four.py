"""A shard of four nodes, the order in which a rollout goes through it, and time that passes."""

from datetime import timedelta

from rollout.models import Rollout
from rollout.process.advance import advance
from tests.recorded_fleet import inventory, join, phases, rollout, upload
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, replica_of, say

ALL_AT_ONCE = {"canary": 0, "max_parallel": "100%", "max_failures": "100%"}
#: A master, two replicas, and a replica of the second one.
STATES = {
    "n1": master_of("a:2", "a:3", addresses=("a:1",)),
    "n2": replica_of("a:1", addresses=("a:2",)),
    "n3": replica_of("a:1", "a:4", addresses=("a:3",)),
    "n4": replica_of("a:3", addresses=("a:4",)),
}


def shard(**more):
    upload()
    join(*STATES)
    say(*(beat(name, state, **more) for name, state in STATES.items()))


def order_of(uid, *modules):
    """The nodes in the order in which they are released; each one succeeds at once."""
    found: list[str] = []
    advance(uid)
    while released := [name for name, phase in phases(uid).items() if phase == "queued"]:
        found.append(*released)
        answer(uid, released[0], inventory=inventory(*modules))
        advance(uid)
    return found


def passes(uid, seconds):
    """So much time passes for the progress deadline."""
    row = rollout(uid)
    assert row.progressed_at
    Rollout.objects.filter(uid=uid).update(progressed_at=row.progressed_at - timedelta(seconds=seconds))
