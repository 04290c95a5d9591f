"""Who acts is known inside the context and nowhere else."""

from concurrent.futures import ThreadPoolExecutor

from eventstore.context import SYSTEM, acting_as, current_metadata, set_actor


def test_the_system_acts_unless_told_otherwise():
    assert current_metadata() == {"actor": SYSTEM, "request_id": ""}


def test_contexts_nest_and_end():
    with acting_as("alice", request_id="r1"):
        with acting_as("bob"):
            assert current_metadata() == {"actor": "bob", "request_id": ""}
        assert current_metadata() == {"actor": "alice", "request_id": "r1"}

    assert current_metadata()["actor"] == SYSTEM


def test_an_actor_is_known_once_credentials_are_verified():
    with acting_as(SYSTEM, request_id="r1"):
        set_actor("alice")
        assert current_metadata() == {"actor": "alice", "request_id": "r1"}

    assert current_metadata()["actor"] == SYSTEM


def test_another_thread_acts_for_itself():
    with acting_as("alice"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(current_metadata).result()["actor"] == SYSTEM
