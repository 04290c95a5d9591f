"""Thousands of rollouts under random strategies, faults and verbs; all rules are watched at every step.

`MODFLEET_SIMULATED` is how many rollouts. A failure names its seed; with `-k one_seed` `MODFLEET_SEED` is run
alone.
"""

import time

import pytest

from tests.environment import number_in
from tests.simulation.chance import simulate

ROLLOUTS = number_in("MODFLEET_SIMULATED", 2000)
SHARDS = 16


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_whatever_happens_the_rules_hold(shard, record_property):
    rollouts = steps = 0
    seed, began = shard, time.process_time()
    while rollouts < ROLLOUTS // SHARDS:
        world = simulate(seed)
        rollouts, steps, seed = rollouts + len(world.rollouts), steps + world.steps, seed + SHARDS
    record_property("simulated", (rollouts, steps, time.process_time() - began))


def test_one_seed():
    simulate(number_in("MODFLEET_SEED", 0))
