"""Which nodes a selector means."""

from types import SimpleNamespace
from typing import Any

import pytest

from rollout.domain.selector import Selector, matches, select


def node(name="db-1", **changes):
    given = {
        "name": name,
        "platform": "linux/x86_64",
        "operating_system": "rhel9",
        "server": "valkey",
        "server_version": "8.1.3",
        "role": "master",
        "agent_labels": {"rack": "a", "zone": "z1"},
        "labels": {"zone": "z2"},
    }
    return SimpleNamespace(**{**given, **changes})


def test_nothing_given_matches_all():
    assert matches(Selector(), node())


def test_names_are_shell_patterns_and_case_counts():
    assert matches(Selector(names=("db-*",)), node())
    assert matches(Selector(names=("db-[0-9]",)), node())
    assert not matches(Selector(names=("DB-*",)), node())
    assert not matches(Selector(names=("db",)), node())


def test_an_operators_label_stands_above_the_agents():
    assert matches(Selector(labels={"zone": ("z2",)}), node())
    assert not matches(Selector(labels={"zone": ("z1",)}), node())


def test_all_labels_must_match_by_any_of_their_values():
    assert matches(Selector(labels={"rack": ("b", "a"), "zone": ("z2",)}), node())
    assert not matches(Selector(labels={"rack": ("a",), "zone": ("z3",)}), node())
    assert not matches(Selector(labels={"row": ("1",)}), node())


@pytest.mark.parametrize(
    ("wanted", "version", "is_meant"),
    [
        ("8.1", "8.1", True),
        ("8.1", "8.1.3", True),
        ("8.1", "8.10", False),
        ("8.1.3", "8.1", False),
        ("8", "8.1.3", True),
        ("8", "", False),
    ],
)
def test_a_version_is_a_beginning_of_whole_components(wanted, version, is_meant):
    assert matches(Selector(versions=(wanted,)), node(server_version=version)) is is_meant


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        ("platforms", "linux/x86_64", "linux/aarch64"),
        ("platforms", "rhel9/x86_64", "rhel8/x86_64"),
        ("servers", "valkey", "redis"),
        ("roles", "master", "replica"),
    ],
)
def test_of_the_values_inside_one_any_will_do(field, right, wrong):
    both: dict[str, Any] = {field: (wrong, right)}
    one: dict[str, Any] = {field: (wrong,)}
    assert matches(Selector(**both), node())
    assert not matches(Selector(**one), node())


def test_all_that_is_given_must_match():
    assert matches(Selector(names=("db-*",), roles=("master",)), node())
    assert not matches(Selector(names=("db-*",), roles=("replica",)), node())


def test_the_order_stays():
    fleet = [node("c"), node("a"), node("b", role="replica")]
    assert [each.name for each in select(Selector(roles=("master",)), fleet)] == ["c", "a"]
