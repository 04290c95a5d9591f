import pytest

from modfleet.proof.history import Way
from modfleet.proof.rules.errors import ON_THE_RESTART_PATH

READONLY = "READONLY You can't write against a read only replica."


def fail_once(proof, error, at=4.0):
    """Let the client add 4, with this error for the first attempt."""
    proof.failed_add(at, 4, error)
    proof.add(at + 0.1, 4, attempt=2)
    proof.server("s", {"k": (1, 2, 3, 4)})
    proof.server("r", {"k": (1, 2, 3, 4)}, master="s")


def test_calls_without_an_error_are_clean(proof):
    assert proof.rules() == []


def test_an_error_while_nothing_restarts(proof):
    proof.change(3.9, 4.1)
    fail_once(proof, READONLY)
    violation = proof.check().violations[0]
    assert (violation.rule, violation.client, violation.key, violation.server) == ("load_error", "a", "k", "s")
    assert violation.message == f'add 4 got "{READONLY}" while no server restarted (during the upgrade u (m)).'


@pytest.mark.parametrize("error", ["ERR unknown command 'm.add'", "closed: reset by peer"])
def test_every_error_counts_while_nothing_restarts(proof, error):
    fail_once(proof, error)
    assert proof.rules() == ["load_error"]


@pytest.mark.parametrize("word", sorted(ON_THE_RESTART_PATH))
def test_redirections_are_allowed_while_a_server_restarts(proof, word):
    proof.change(3.9, 4.1, way=Way.RESTART)
    fail_once(proof, f"{word} and more")
    verdict = proof.check()
    assert verdict.violations == []
    assert verdict.errors == {word.rstrip(":"): 1}


@pytest.mark.parametrize(
    "error",
    [
        "ERR unknown command 'm.add'",
        "WRONGTYPE another module's key",
        "NOREPLICAS Not enough good replicas to write.",
        "MISCONF Errors writing to the AOF file",
        "NOAUTH Authentication required.",
        "closed",
    ],
)
def test_other_errors_are_not_allowed_while_a_server_restarts(proof, error):
    proof.change(3.9, 4.1, action="restart")
    fail_once(proof, error)
    assert proof.rules() == ["restart_error"]


@pytest.mark.parametrize(("at", "rules"), [(3.88, ["load_error"]), (3.9, []), (6.05, []), (6.15, ["load_error"])])
def test_clients_recover_within_the_retry_time(proof, at, rules):
    proof.change(3.9, 4.1, way=Way.RESTART)
    fail_once(proof, READONLY, at)
    assert proof.rules() == rules


def test_an_error_belongs_to_the_restart_that_its_call_touches(proof):
    proof.change(4.9, 5.0, way=Way.RESTART)
    proof.failed_add(4.0, 4, "timeout: 1 s", took=1.0)
    proof.add(5.1, 4, attempt=2)
    proof.server("s", {"k": (1, 2, 3, 4)})
    proof.server("r", {"k": (1, 2, 3, 4)}, master="s")
    assert proof.rules() == []


@pytest.mark.parametrize("error", ["NOREPLICAS Not enough good replicas to write.", "MISCONF No space left on device"])
def test_a_fault_allows_what_it_causes(proof, error):
    proof.change(3.9, 4.1, action="fill disk", is_fault=True)
    fail_once(proof, error)
    assert proof.rules() == []


def test_a_fault_does_not_allow_a_command_to_be_unknown(proof):
    proof.change(3.9, 4.1, action="kill", is_fault=True)
    fail_once(proof, "ERR unknown command 'm.add'")
    assert proof.rules() == ["restart_error"]
