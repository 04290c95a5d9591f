"""The rule `went_back`."""

import pytest

from modfleet.proof.history import Kind


def test_a_key_that_grows_is_clean(proof):
    proof.get(4.0, 1, 2, 3)
    assert proof.rules() == []


@pytest.mark.parametrize("entries", [(), (1, 2), (1, 3, 2), (2, 3)])
def test_a_read_has_less_than_the_answer_before(proof, entries):
    proof.get(4.0, *entries)
    proof.get(5.0, 1, 2, 3)
    violation = proof.check().violations[0]
    assert "went_back" in proof.rules()
    assert f"has {list(entries)}, which does not begin with [1, 2, 3]" in violation.message


def test_one_read_too_few_is_one_violation(proof):
    proof.get(4.0)
    proof.get(5.0, 1, 2, 3)
    assert proof.rules() == ["went_back"]


def test_the_answer_to_a_write_must_not_go_back_either(proof):
    proof.get(3.5, 1, 2, 3)
    proof.add(4.0, 4, 1, 2, 4)
    proof.server("s", {"k": (1, 2, 3, 4)})
    proof.server("r", {"k": (1, 2, 3, 4)}, master="s")
    assert "went_back" in proof.rules()


def test_clients_are_judged_each_on_its_own(proof):
    proof.get(2.5, 1, 2, client="b")
    proof.get(3.5, 1, 2, 3, client="b")
    assert proof.rules() == []


def test_a_command_may_append_without_saying_what_the_key_has(proof):
    proof.call(4.0, Kind.ADD, 4)
    proof.get(5.0, 1, 2, 3, 4)
    proof.server("s", {"k": (1, 2, 3, 4)})
    proof.server("r", {"k": (1, 2, 3, 4)}, master="s")
    assert proof.rules() == []


@pytest.mark.parametrize(("values", "rules"), [((2,), []), ((1,), ["went_back"]), ((), ["went_back"])])
def test_a_value_does_not_go_back(proof, values, rules):
    for entry in (1, 2):
        proof.call(2.0 + entry, Kind.SET, entry, client="b", key="v")
    proof.get(5.0, *values, client="b", key="v")
    proof.get(6.0, 2, client="b", key="v")
    proof.server("s", {"k": (1, 2, 3), "v": (2,)})
    proof.server("r", {"k": (1, 2, 3), "v": (2,)}, master="s")
    assert proof.rules() == rules


@pytest.mark.parametrize(("at", "rules"), [(12.0, []), (20.0, ["went_back"])])
def test_what_a_killed_server_had_not_saved_may_be_away(proof, at, rules):
    proof.change(at, at + 0.5, action="kill unsaved", is_fault=True)
    proof.add(at + 1, 4, 1, 4)
    proof.server("s", {"k": (1, 4)})
    proof.server("r", {"k": (1, 4)}, master="s")
    assert [rule for rule in proof.rules() if rule != "lost"] == rules
