"""The plan of faults, before any of them is carried out."""

from itertools import islice
from random import Random

from tests.proof.faults import FAULTS, KILLS, REPLICATION, kinds_for, plans


def test_the_same_seed_gives_the_same_faults():
    first, again, other = (list(islice(plans(Random(seed)), 100)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_each_fault_comes_up():
    assert {each.kind for each in islice(plans(Random(1)), 1000)} == set(FAULTS)


def test_a_server_alone_is_not_killed():
    assert FAULTS.keys() - kinds_for(is_replicated=False).keys() == {*KILLS, *REPLICATION}
