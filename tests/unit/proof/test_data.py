"""The rules `lost` and `invented`."""

import pytest

from modfleet.proof.history import Kind, Way


def at_the_end(proof, master, replica=None):
    proof.server("s", {"k": master})
    proof.server("r", {"k": master if replica is None else replica}, master="s")


def repeat(proof, error="closed: reset by peer"):
    """Let the first attempt to add 4 fail, and the second one succeed."""
    proof.change(3.9, 4.1, way=Way.RESTART)
    proof.failed_add(4.0, 4, error)
    proof.add(4.1, 4, attempt=2)


@pytest.mark.parametrize("server", ["s", "r"])
@pytest.mark.parametrize("entries", [(1, 2), (1, 3), (2, 3), ()])
def test_an_acknowledged_entry_is_lost(proof, server, entries):
    proof.server(server, {"k": entries}, master="" if server == "s" else "s")
    violation = proof.check().violations[0]
    assert proof.rules() == ["lost"]
    assert (violation.server, violation.key, violation.client, violation.module) == (server, "k", "a", "m")


def test_the_message_names_the_entry_and_the_change(proof):
    proof.change(2.5, 3.5)
    at_the_end(proof, (1, 2, 3), (1, 2))
    message = "r: the key k lacks the acknowledged entry 3: [1, 2] (answered during the upgrade u (m))."
    assert [each.message for each in proof.check().violations] == [message]


def test_a_replica_lacks_the_key(proof):
    proof.server("r", {}, master="s")
    assert proof.rules() == ["lost"]


def test_no_master_has_the_key(proof):
    proof.server("s", {})
    proof.server("r", {}, master="s")
    message = "The key k is on no master (answered before the first change)."
    assert [(each.rule, each.message) for each in proof.check().violations] == [("lost", message)]


@pytest.mark.parametrize("entries", [(1, 2, 3, 4), (1, 2, 2, 3), (1, 3, 2), (2, 1, 3), (7, 1, 2, 3)])
def test_entries_that_no_call_can_have_written(proof, entries):
    at_the_end(proof, entries, (1, 2, 3))
    assert proof.rules() == ["invented"]


def test_a_key_that_no_client_wrote(proof):
    proof.server("s", {"k": (1, 2, 3), "other": (1,)})
    assert proof.rules() == ["invented"]


def test_a_replica_has_a_key_that_its_master_does_not_have(proof):
    proof.failed_add(4.0, 1, "closed: reset by peer", key="k2")
    proof.change(4.0, 4.1, way=Way.RESTART)
    proof.server("r", {"k": (1, 2, 3), "k2": (1,)}, master="s")
    assert proof.rules() == ["invented"]


def test_a_key_is_on_two_masters(proof):
    proof.server("s2", {"k": (1, 2, 3)})
    assert proof.rules() == ["invented"]


def test_each_shard_of_a_cluster_has_its_keys(proof):
    proof.add(4.0, 1, key="k2", server="s2")
    proof.server("s2", {"k2": (1,)})
    proof.server("r2", {"k2": (1,)}, master="s2")
    proof.server("rr2", {"k2": ()}, master="r2")
    assert [(each.rule, each.server) for each in proof.check().violations] == [("lost", "rr2")]


@pytest.mark.parametrize("entries", [(1, 2, 3, 4), (1, 2, 3, 4, 4)])
def test_an_attempt_without_an_answer_may_have_happened(proof, entries):
    repeat(proof)
    at_the_end(proof, entries)
    assert proof.rules() == []


def test_an_attempt_without_an_answer_may_be_executed_late(proof):
    repeat(proof)
    proof.add(4.2, 5)
    at_the_end(proof, (1, 2, 3, 4, 5, 4))
    assert proof.rules() == []


def test_a_replica_has_the_order_of_its_master(proof):
    repeat(proof)
    proof.failed_add(4.2, 5, "closed: reset by peer")
    proof.add(4.3, 5, attempt=2)
    at_the_end(proof, (1, 2, 3, 4, 5, 4, 5), (1, 2, 3, 4, 5, 5, 4))
    assert proof.rules() == ["invented"]


def test_an_attempt_is_not_executed_before_its_call(proof):
    repeat(proof)
    at_the_end(proof, (1, 2, 4, 3, 4))
    assert proof.rules() == ["invented", "invented"]


@pytest.mark.parametrize("error", ["READONLY You can't write", "MOVED 1 host:1"])
def test_an_attempt_that_was_refused_did_not_happen(proof, error):
    repeat(proof, error)
    at_the_end(proof, (1, 2, 3, 4, 4), (1, 2, 3, 4))
    assert proof.rules() == ["invented"]


def test_one_attempt_without_an_answer_explains_one_more_entry_only(proof):
    repeat(proof, "timeout: 1 s")
    at_the_end(proof, (1, 2, 3, 4, 4, 4), (1, 2, 3, 4))
    assert proof.rules() == ["invented"]


@pytest.mark.parametrize(
    ("replica", "rules"), [((1, 2, 3, 4), []), ((1, 2, 3), ["lost"]), ((1, 2, 3, 4, 4), ["invented"])]
)
def test_a_replica_has_what_its_master_has(proof, replica, rules):
    proof.change(3.9, 5.0, way=Way.RESTART)
    for attempt in (1, 2, 3):
        proof.failed_add(4.0 + attempt / 10, 4, "closed: reset by peer", attempt=attempt)
    at_the_end(proof, (1, 2, 3, 4), replica)
    assert proof.rules() == rules


def test_an_entry_that_was_read_is_lost_though_its_attempt_had_no_answer(proof):
    repeat(proof)
    proof.get(4.2, 1, 2, 3, 4, 4)
    proof.get(3.5, 1, 2, 3, client="b")
    at_the_end(proof, (1, 2, 3, 4))
    assert proof.rules() == ["lost", "lost"]


@pytest.mark.parametrize(
    ("value", "rules"), [((2,), []), ((3,), []), ((1,), ["lost"] * 2), ((), ["lost"] * 2), ((4,), ["invented"] * 2)]
)
def test_a_value_is_the_last_one_or_one_that_may_have_been_set_later(proof, value, rules):
    proof.change(3.9, 4.1, way=Way.RESTART)
    for entry in (1, 2):
        proof.call(1.0 + entry, Kind.SET, entry, client="b", key="v", entries=(entry,))
    proof.call(4.0, Kind.SET, 3, client="b", key="v", error="closed: reset by peer")
    proof.server("s", {"k": (1, 2, 3), "v": value})
    proof.server("r", {"k": (1, 2, 3), "v": value}, master="s")
    assert proof.rules() == rules


def kill(proof, **fields):
    proof.change(12.0, 12.5, action="kill unsaved", is_fault=True, **fields)


def test_writes_that_a_killed_server_had_not_saved_are_counted(proof):
    kill(proof)
    at_the_end(proof, (1,))
    verdict = proof.check()
    assert verdict.violations == []
    assert (verdict.lost_by_faults, verdict.keys_lost_by_faults) == (2, ["k"])


def test_writes_before_the_last_seconds_must_survive_a_kill(proof):
    kill(proof)
    at_the_end(proof, (2, 3))
    assert proof.rules() == ["lost", "lost"]


def test_a_write_after_the_kill_must_be_there(proof):
    kill(proof)
    proof.add(13.0, 4, 1, 4)
    at_the_end(proof, (1,))
    assert proof.rules() == ["lost", "lost"]


def test_the_kill_of_another_server_excuses_nothing(proof):
    kill(proof, servers=("r",))
    at_the_end(proof, (1, 2))
    assert proof.rules() == ["lost", "lost"]


def test_a_kill_of_a_server_that_saves_excuses_nothing(proof):
    proof.change(3.9, 4.1, action="kill", is_fault=True)
    at_the_end(proof, (1, 2))
    assert proof.rules() == ["lost", "lost"]


def test_a_kill_excuses_no_difference_between_copies(proof):
    kill(proof)
    at_the_end(proof, (1, 2, 3), (1, 2))
    assert proof.rules() == ["lost"]


def test_values_that_a_killed_server_had_not_saved_are_counted(proof):
    for entry in (1, 2):
        proof.call(2.0 + entry, Kind.SET, entry, client="b", key="v", entries=(entry,))
    kill(proof)
    proof.server("s", {"k": (1, 2, 3), "v": (1,)})
    proof.server("r", {"k": (1, 2, 3), "v": (1,)}, master="s")
    verdict = proof.check()
    assert verdict.violations == []
    assert (verdict.lost_by_faults, verdict.keys_lost_by_faults) == (1, ["v"])
