"""The rules of `docs/reference/strategy.md`, a test for each."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.retries import LONGEST_BACKOFF_SECONDS, Retries
from rollout.domain.strategy import Strategy

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "strategy.md"
PERCENTS = st.integers(0, 100).map(lambda share: f"{share}%")
AMOUNTS = st.integers(0, 10_000) | PERCENTS
SOME = st.integers(1, 10_000) | st.integers(1, 100).map(lambda share: f"{share}%")


def test_by_default_one_node_comes_first_and_then_the_rest():
    assert Strategy().wave_sizes(5) == (1, 4)


def test_a_canary_of_0_is_no_wave():
    assert Strategy(canary=0).wave_sizes(5) == (5,)
    assert Strategy(canary="0%").wave_sizes(5) == (5,)


def test_waves_are_shares_of_the_rollouts_nodes_not_of_what_is_left():
    assert Strategy(canary=0, waves=("50%", "25%")).wave_sizes(100) == (50, 25, 25)


def test_canary_and_waves_are_rounded_up():
    assert Strategy(canary="1%", waves=("25%",)).wave_sizes(10) == (1, 3, 6)


def test_what_is_left_is_one_more_wave():
    assert Strategy(canary=1, waves=(2,)).wave_sizes(10) == (1, 2, 7)


def test_waves_that_come_after_the_last_node_are_none():
    assert Strategy(canary=2, waves=(5, 5)).wave_sizes(4) == (2, 2)
    assert Strategy().wave_sizes(0) == ()


@given(nodes=st.integers(0, 10_000), canary=AMOUNTS, waves=st.lists(SOME, max_size=10))
def test_every_node_is_in_exactly_one_wave_and_no_wave_is_empty(nodes, canary, waves):
    sizes = Strategy(canary=canary, waves=tuple(waves)).wave_sizes(nodes)
    assert sum(sizes) == nodes
    assert all(size > 0 for size in sizes)


@pytest.mark.parametrize(("amount", "nodes", "parallel"), [("10%", 25, 2), ("10%", 5, 1), ("100%", 5, 5), (3, 2, 3)])
def test_max_parallel_is_rounded_down_and_at_least_1(amount, nodes, parallel):
    assert Strategy(max_parallel=amount).parallel(nodes) == parallel


@pytest.mark.parametrize(
    ("amount", "nodes", "kept"), [("10%", 25, 3), ("1%", 5, 1), (0, 5, 0), ("0%", 5, 0), (7, 5, 7)]
)
def test_min_healthy_is_rounded_up(amount, nodes, kept):
    assert Strategy(min_healthy=amount).kept_healthy(nodes) == kept


@pytest.mark.parametrize(("amount", "nodes", "accepted"), [("10%", 25, 2), ("10%", 9, 0), ("100%", 9, 9), (0, 9, 0)])
def test_max_failures_is_rounded_down(amount, nodes, accepted):
    assert Strategy(max_failures=amount).tolerated(nodes) == accepted


def test_max_failures_is_exceeded_not_reached():
    strategy = Strategy(max_failures=2)
    assert [failed > strategy.tolerated(10) for failed in (1, 2, 3)] == [False, False, True]


@given(nodes=st.integers(0, 10_000), share=PERCENTS)
def test_rounding_is_exact_for_every_share(nodes, share):
    kept = Strategy(min_healthy=share).kept_healthy(nodes)
    accepted = Strategy(max_failures=share).tolerated(nodes)
    assert accepted * 100 <= int(share[:-1]) * nodes <= kept * 100
    assert kept - accepted in {0, 1}


@given(attempt=st.integers(1, 1000), backoff=st.floats(0, 300), key=st.text(max_size=20))
def test_the_wait_before_a_retry_doubles_to_the_longest_less_at_most_half(attempt, backoff, key):
    longest = min(backoff * 2.0 ** min(attempt - 1, 30), LONGEST_BACKOFF_SECONDS)
    delay = Retries(backoff_seconds=backoff).delay_seconds(attempt, key=key)
    assert longest / 2 <= delay <= longest


def test_nodes_that_fail_together_are_tried_again_at_different_times():
    delays = {Retries().delay_seconds(1, key=f"n{number}") for number in range(50)}
    assert len(delays) == 50


def test_the_reference_has_every_field_with_its_default():
    fields = REFERENCE.read_text().partition("## Fields")[2].partition("## Waves")[0].splitlines()
    cells = [[cell.strip().strip("`") for cell in line.split("|")] for line in fields if line.startswith("| `")]
    defaults = msgspec.to_builtins(Strategy())
    nested = {f"{group}.{name}": each for group in ("retries", "health") for name, each in defaults.pop(group).items()}
    assert {name: default for _, name, _, default, *_ in cells} == {
        name: in_words(value) for name, value in {**defaults, **nested}.items()
    }


def in_words(default):
    if isinstance(default, float):
        return f"{default:g}"
    return default if isinstance(default, str) and default else json.dumps(default)
