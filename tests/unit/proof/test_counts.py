"""The rule `empty`, and the numbers of a verdict."""

from modfleet.proof.history import CONTROL, Kind, Way
from tests.unit.proof.builder import Proof


def test_no_client_has_a_history(tmp_path):
    assert Proof(tmp_path).rules() == ["empty"]


def test_a_client_without_an_acknowledged_call(proof):
    proof.change(1.0, 2.0, way=Way.RESTART)
    proof.failed_add(1.0, 1, "LOADING", client="b", key="k2")
    proof.calls["d"] = []
    assert [(each.rule, each.client) for each in proof.check().violations] == [("empty", "b"), ("empty", "d")]


def test_no_control_client(proof):
    del proof.calls[CONTROL]
    assert proof.rules() == ["empty", "stall"]


def test_no_dump(tmp_path):
    proof = Proof(tmp_path)
    proof.ask(1.0, "1")
    for dumps in proof.dumps.values():
        dumps.clear()
    assert proof.rules() == ["empty"]


def test_a_server_of_a_change_has_no_dump(proof):
    proof.change(1.0, 2.0, servers=("s", "unread"))
    assert [(each.rule, each.server) for each in proof.check().violations] == [("empty", "unread")]


def test_the_master_of_a_replica_has_no_dump(proof):
    proof.server("r2", {}, master="unread")
    proof.server("r3", {}, master="r4")
    proof.server("r4", {}, master="r3")
    violations = [(each.rule, each.server) for each in proof.check().violations]
    assert violations == [("empty", "r2"), ("empty", "r3"), ("empty", "r4")]


def test_what_is_counted(proof):
    proof.get(4.0, 1, 2, 3)
    proof.ask(5.0, "1", client="o")
    proof.call(6.0, Kind.SET, 1, client="o", key="v")
    proof.change(4.0, 4.1)
    proof.change(5.0, 5.1, servers=["other"])  # of the same rollout
    proof.change(7.0, 7.1, action="restart", uid="")
    proof.change(8.0, 8.1, action="restart", uid="")
    verdict = proof.check()
    assert (verdict.acknowledged, verdict.writes, verdict.reads) == (7, 4, 1)
    assert verdict.changes == {"upgrade": 1, "restart": 2}
    assert round(verdict.seconds, 2) == 6.01
