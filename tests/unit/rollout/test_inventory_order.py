"""In which order a node speaks: by incarnation and counter, whatever its clock says."""

from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.node.inventory_order import LARGEST_STEP, REMEMBERED, InventoryOrder
from rollout.messages import Inventory


def said(incarnation, counter, sequence=0):
    return Inventory(sequence=sequence, incarnation=incarnation, counter=counter)


def after(heard, look, *, hello=False, silent=False):
    return heard.after(look, hello=hello, silent=silent)


A9 = InventoryOrder(incarnation="a", counter=9)


def test_it_works():
    assert after(InventoryOrder(), said("a", 1)) == InventoryOrder(incarnation="a", counter=1)
    assert after(A9, said("a", 10)) == InventoryOrder(incarnation="a", counter=10)
    assert after(A9, said("a", 9)) is after(A9, said("a", 8)) is None


def test_an_incarnation_that_is_new_is_newer():
    """Also without its hello: that may be lost."""
    assert after(A9, said("b", 3)) == InventoryOrder(incarnation="b", counter=3, former=("a",))


def test_a_former_incarnation_is_older():
    now = InventoryOrder(incarnation="b", counter=1, former=("a",))
    assert after(now, said("a", 10)) is None
    assert after(now, said("a", 10), hello=True) is None


def test_a_node_that_was_silent_is_believed():
    """Two agents had one name, and the newer one has ended; or a wrong number had been believed."""
    now = InventoryOrder(incarnation="b", counter=2**62, former=("a",))
    assert after(now, said("a", 10), silent=True) == InventoryOrder(incarnation="a", counter=10, former=("b",))
    assert after(now, said("b", 7), silent=True) == InventoryOrder(incarnation="b", counter=7, former=("a",))


def test_a_counter_that_cannot_be_is_ignored():
    assert after(A9, said("a", 9 + LARGEST_STEP)) is not None
    for look in (said("a", 10 + LARGEST_STEP), said("a", 2**63 - 1), said("b", 2**63 - 1)):
        assert after(A9, look) is None
        assert not A9.is_plausible(look)


def test_an_agent_without_incarnations():
    assert after(InventoryOrder(), said("", 0, sequence=5)) == InventoryOrder()
    assert after(A9, said("", 0, sequence=5)) is None, "journaled before the agent was upgraded"
    older = after(A9, said("", 0, sequence=5), hello=True)
    assert older == InventoryOrder(former=("a",)), "the agent was downgraded"
    assert after(older, said("b", 1)) == InventoryOrder(incarnation="b", counter=1, former=("a",))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2**63 - 1), st.booleans())))
def test_the_next_start_is_always_heard(looks):
    heard = InventoryOrder()
    for number, counter, hello in looks:
        heard = after(heard, said(f"i{number}", counter), hello=hello) or heard
    assert len(heard.former) <= REMEMBERED
    assert after(heard, said("new", 1)) is not None


@given(st.permutations(range(1, 8)), st.permutations(range(1, 8)))
def test_the_newest_look_wins_in_any_order_in_which_they_come(first, second):
    heard, taken = InventoryOrder(), []
    for incarnation, counters in (("a", first), ("b", second)):
        for counter in counters:
            for look in (said(incarnation, counter), said("a", counter)):  # what was late, too
                if (newer := after(heard, look)) is not None:
                    heard = newer
                    taken.append((look.incarnation, look.counter))
    assert taken == sorted(taken)
    assert taken[-1] == ("b", 7)
