"""Who acts, and for which request, is known inside the context and nowhere else."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from eventstore import (
    ANONYMOUS,
    SYSTEM,
    acting_as,
    current_actor,
    current_metadata,
    current_request,
    is_person,
    person,
    set_person,
    shown,
)


def test_the_system_acts_unless_told_otherwise():
    metadata = current_metadata()
    assert (metadata.actor, metadata.requested_by, metadata.causation_id) == (SYSTEM, SYSTEM, "")
    assert metadata.correlation_id != current_metadata().correlation_id
    assert (current_actor(), current_request()) == (SYSTEM, "")


def test_contexts_nest_and_end():
    with acting_as("user:alice", correlation_id="r1"):
        with acting_as("user:bob"):
            assert current_actor() == "user:bob"
            assert len(current_request()) == 32
        assert (current_actor(), current_request()) == ("user:alice", "r1")

    assert current_actor() == SYSTEM


def test_a_context_may_have_a_cause():
    event_id = uuid4()
    with acting_as("system:clock", because_of=event_id):
        assert current_metadata().causation_id == event_id.hex
    assert current_metadata().because_of(None).causation_id == ""


def test_an_actor_is_known_once_credentials_are_verified():
    with acting_as(ANONYMOUS, correlation_id="r1"):
        set_person("alice")
        metadata = current_metadata()
        assert (metadata.actor, metadata.requested_by, metadata.correlation_id) == ("user:alice", "user:alice", "r1")

    assert current_actor() == SYSTEM


def test_another_thread_acts_for_itself():
    with acting_as("user:alice"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(current_actor).result() == SYSTEM


def test_a_login_is_shown_without_its_kind_and_nothing_else_is():
    assert shown(person("system")) == "system"
    assert [shown(each) for each in ("node:alice", "system:relay", "unknown:alice")] == [
        "node:alice",
        "system:relay",
        "unknown:alice",
    ]
    assert is_person(person("node"))
    assert not is_person("node:alice")
