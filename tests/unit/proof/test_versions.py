"""The rule `version`."""

import pytest

from modfleet.proof.history import Way

CLEAN = [(1.0, "1"), (4.0, "1"), (4.5, "1"), (5.0, "2"), (6.5, "2"), (9.0, "2")]


def ask_all(proof, answers, **fields):
    for at, configuration in answers:
        proof.ask(at, configuration, client="o", **fields)


def test_a_version_changes_once(proof):
    proof.change(4.0, 6.0)
    ask_all(proof, CLEAN)
    assert proof.rules() == []


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([(3.0, "2")], id="new before the change"),
        pytest.param([(6.5, "1")], id="old after the change"),
        pytest.param([(4.5, "2"), (5.0, "1")], id="back during the change"),
        pytest.param([(4.5, "3")], id="another one during the change"),
        pytest.param([(7.0, "2 limit=5")], id="other arguments after the change"),
    ],
)
def test_a_version_that_the_change_does_not_explain(proof, answers):
    proof.change(4.0, 6.0)
    ask_all(proof, answers)
    assert proof.rules() == ["version"]


def test_the_message_says_what_was_expected(proof):
    proof.change(4.0, 6.0, before="1 limit=5", after="2 limit=5")
    ask_all(proof, [(7.0, "2 limit=4")])
    message = "s: m answered '2 limit=4'. Expected: '2 limit=5' (1.00 s after the upgrade u (m))."
    assert [each.message for each in proof.check().violations] == [message]


def test_the_answers_of_the_commands_count_too(proof):
    proof.change(3.2, 3.4)
    proof.get(3.5, 1, 2, 3, configuration="1")
    assert proof.rules() == ["version"]


def test_two_clients_at_the_same_time_may_see_both_versions(proof):
    proof.change(4.0, 6.0)
    proof.ask(4.8, "2", client="o", took=0.2)
    proof.ask(4.9, "1", client="p", took=0.2)
    assert proof.rules() == []
    proof.ask(5.01, "1", client="p")
    assert proof.rules() == ["version"]


@pytest.mark.parametrize(
    ("seen", "rules"),
    [("11221", []), ("111", []), ("1212", ["version"]), ("121211", ["version"]), ("113", ["version"])],
)
def test_a_change_that_is_undone_goes_forward_and_back_once(proof, seen, rules):
    proof.change(4.0, 6.0, is_undone=True)
    ask_all(proof, [(4.1 + number / 10, configuration) for number, configuration in enumerate(seen)])
    assert proof.rules() == rules


@pytest.mark.parametrize(("configuration", "rules"), [("1", []), ("2", ["version"])])
def test_a_change_that_was_undone_leaves_the_old_version(proof, configuration, rules):
    proof.change(4.0, 6.0, is_undone=True)
    ask_all(proof, [(6.5, configuration)])
    assert proof.rules() == rules


def test_a_rollback_goes_back(proof):
    proof.change(4.0, 5.0)
    proof.change(6.0, 7.0, action="rollback", module="m", before="2", after="1")
    ask_all(proof, [(3.0, "1"), (5.5, "2"), (6.1, "2"), (6.2, "1"), (8.0, "1")])
    assert proof.rules() == []


def test_a_server_that_the_change_does_not_name_stays_as_it_is(proof):
    proof.change(4.0, 6.0)
    ask_all(proof, [(3.0, "1"), (5.0, "1"), (7.0, "1")], server="r")
    assert proof.rules() == []
    ask_all(proof, [(8.0, "2")], server="r")
    assert proof.rules() == ["version"]


def test_a_change_of_another_module_explains_nothing(proof):
    proof.change(4.0, 6.0, action="upgrade", module="n", before="1", after="2")
    ask_all(proof, [(3.0, "1"), (5.0, "2")])
    assert proof.rules() == ["version"]


@pytest.mark.parametrize(("at", "rules"), [(3.0, ["version"]), (5.0, []), (6.5, []), (8.5, []), (9.5, ["version"])])
def test_a_module_answers_from_its_installation_to_its_removal(proof, at, rules):
    proof.change(4.0, 6.0, action="install", module="m", after="1")
    proof.change(8.0, 9.0, action="remove", module="m", before="1")
    ask_all(proof, [(at, "1")])
    assert proof.rules() == rules


def test_a_call_that_lasts_over_two_changes_may_see_any_of_their_versions(proof):
    proof.change(4.0, 4.5, way=Way.RESTART)
    proof.change(5.0, 5.5, action="upgrade", module="m", before="2", after="3", way=Way.RESTART)
    proof.ask(4.2, "2", client="o", took=1.0)
    assert proof.rules() == []


def test_a_call_over_two_changes_says_nothing_about_the_order_in_one(proof):
    proof.change(4.0, 4.5, way=Way.RESTART)
    proof.change(5.0, 5.5, action="upgrade", module="m", before="2", after="3", way=Way.RESTART)
    proof.ask(4.2, "2", client="o")
    proof.ask(4.3, "3", client="o", took=1.0)
    assert proof.rules() == []


@pytest.mark.parametrize(("at", "configuration"), [(5.9, "1"), (5.9, "2"), (3.9, "1"), (3.9, "2")])
def test_a_call_at_an_end_of_the_change_may_see_both_versions(proof, at, configuration):
    proof.change(4.0, 6.0)
    proof.ask(at, configuration, client="o", took=0.2)
    assert proof.rules() == []


def test_a_change_that_keeps_the_version_is_clean(proof):
    proof.change(4.0, 6.0, action="config rewrite", module="m", before="1", after="1")
    ask_all(proof, [(3.0, "1"), (4.5, "1"), (5.0, "1"), (7.0, "1")])
    assert proof.rules() == []


def test_a_restart_does_not_explain_another_version(proof):
    proof.change(4.0, 5.0, action="restart")
    ask_all(proof, [(3.0, "2"), (6.0, "1")])
    assert proof.rules() == ["version"]


def test_a_module_that_is_gone(proof):
    """A server without the module answers its version with nothing."""
    proof.ask(1.0, "1")
    proof.change(2.0, 4.0)
    proof.ask(3.0, "2")
    proof.ask(5.0, "")
    assert proof.rules() == ["version"]
