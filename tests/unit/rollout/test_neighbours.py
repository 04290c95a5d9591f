"""Agents and control planes of neighbouring versions understand each other's messages."""

import pytest

from rollout.messages import (
    FORMER_CAPABILITIES,
    Capability,
    Command,
    Heartbeat,
    Inventory,
    Reason,
    Report,
    ServerState,
    from_json,
    to_json,
)
from rollout.readiness import why_not_ready

PROFILE = {"platform": "linux/x86_64"}
BEAT = {"node": "n1", "hello": True, "interval_seconds": 30.0, "profile": PROFILE, "inventory": {"sequence": 7}}
REPORT = {"rollout": "r", "node": "n1", "module_name": "m", "generation": 1, "attempt": 1, "phase": "succeeded"}
COMMAND = {
    "rollout": "r",
    "node": "n1",
    "module_name": "m",
    "version": 1,
    "action": "remove",
    "activation": "load",
    "generation": 1,
    "attempt": 1,
    "expires": 1e9,
    "deadline_seconds": 60.0,
}


@pytest.mark.parametrize(("kind", "body"), [(Heartbeat, BEAT), (Report, REPORT), (Command, COMMAND)])
def test_fields_may_be_missing_and_others_may_come(kind, body):
    assert from_json(kind, body) == from_json(kind, body | {"of_the_next_version": [1]})


def test_what_the_version_before_does_not_say_is_known_as_such():
    assert from_json(Heartbeat, BEAT).sent_at is from_json(Command, COMMAND).sent_at is None
    assert from_json(Heartbeat, BEAT).inventory == Inventory(sequence=7, incarnation="", counter=0)


def test_an_older_control_plane_expects_nothing_and_an_older_agent_tells_no_release():
    command, report = from_json(Command, COMMAND), from_json(Report, REPORT)
    assert (command.release, command.expects, report.release) == (0, None, 0)


def test_an_agent_that_names_no_capabilities_neither_checks_the_role_nor_restarts():
    assert set(Capability) - FORMER_CAPABILITIES == {Capability.CHECK_ROLE, Capability.RESTART}


#: What an agent of the former release sends of a master.
FORMER_FACTS = {"role": "master", "loading": False, "async_loading": False, "cluster_enabled": False}


def test_the_place_in_the_shard_of_an_older_agent_is_not_known():
    facts = from_json(Heartbeat, BEAT | {"facts": FORMER_FACTS}).facts
    assert facts == ServerState(role="master", loading=False, async_loading=False, cluster_enabled=False)
    assert (facts.replication, facts.migrations, facts.backups, facts.addresses) == (None, None, None, ())
    reason, message = why_not_ready(facts) or ("", "")
    assert reason is Reason.SERVER_NOT_READY
    assert message.endswith("or upgrade the agent.")


def test_a_newer_agent_is_understood_by_an_older_control_plane():
    """It reads the fields that it knows, and drops no heartbeat because of the others."""
    sent = to_json(from_json(Heartbeat, BEAT | {"facts": FORMER_FACTS | {"addresses": ["192.0.2.1:6379"]}}))
    known = {name: sent["facts"][name] for name in FORMER_FACTS}
    assert known == FORMER_FACTS
    assert from_json(Heartbeat, sent | {"capabilities": [*Capability, "of_the_next_version"]}).facts
