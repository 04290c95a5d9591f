"""Agents and control planes of neighbouring versions understand each other's messages."""

import pytest

from rollout.messages import Command, Heartbeat, Inventory, Report, from_json

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
