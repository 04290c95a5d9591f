"""Actors in logs of before they had a kind."""

import pytest

import rollout.domain.actor_upcaster  # noqa: F401  # registers itself
from eventstore import metadata_of

NODE, PLACEMENT, ROLLOUT = "node:n1", "placement:n1:greet", "rollout:u1"


@pytest.mark.parametrize(
    ("name", "stream", "actor", "request_id", "kinded"),
    [
        ("rollout.started.v1", ROLLOUT, "alice", "", "user:alice"),
        ("rollout.paused.v1", ROLLOUT, "system", "", "system:relay"),
        ("rollout.started.v1", ROLLOUT, "system-admin", "r1", "user:system-admin"),
        ("artifact.uploaded.v1", "artifact:greet:1", "alice", "r1", "user:alice"),
        ("account.created.v1", "account:1", "system", "", "system:program"),
        ("webhook.disabled.v1", "webhook:1", "system", "", "system:program"),
        ("node.joined.v1", NODE, "n1", "", "node:n1"),
        ("node.joined.v1", NODE, "agents", "", "node:n1"),
        ("node.inventory_changed.v1", NODE, "mallory", "", "unknown:mallory"),
        ("node.drained.v1", NODE, "n1", "", "user:n1"),
        ("node.went_offline.v1", NODE, "system", "", "system:clock"),
        ("node.drifted.v1", NODE, "system", "", "system:reconciler"),
        ("operation.scheduled.v1", PLACEMENT, "n1", "", "user:n1"),
        ("operation.released.v1", PLACEMENT, "system", "", "system:relay"),
        ("operation.progressed.v1", PLACEMENT, "agents", "", "node:n1"),
        ("operation.finished.v1", PLACEMENT, "n1", "", "node:n1"),
        ("operation.finished.v1", PLACEMENT, "n1", "r1", "user:n1"),
        ("operation.finished.v1", PLACEMENT, "bob", "", "unknown:bob"),
        ("something.else.v1", "else:1", "bob", "", "unknown:bob"),
        ("something.else.v1", "else:1", "", "", "unknown:"),
    ],
)
def test_each_gets_one(name, stream, actor, request_id, kinded):
    metadata = metadata_of(name, stream, f'{{"actor":"{actor}","request_id":"{request_id}"}}')
    assert (metadata.actor, metadata.requested_by, metadata.correlation_id) == (kinded, kinded, request_id)
    assert metadata.causation_id == ""


def test_what_has_one_keeps_it():
    text = '{"actor":"user:n1","causation_id":"c","correlation_id":"r","requested_by":"user:al"}'
    metadata = metadata_of("node.joined.v1", NODE, text)
    assert (metadata.actor, metadata.requested_by) == ("user:n1", "user:al")
    assert (metadata.correlation_id, metadata.causation_id) == ("r", "c")
