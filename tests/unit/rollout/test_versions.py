"""Control plane and agents of different versions understand each other."""

from rollout.messages import Action, Activation, Command, from_json, to_json


def test_fields_of_a_newer_version_are_ignored():
    command = Command(
        rollout="r",
        node="n1",
        module_name="greet",
        version=1,
        action=Action.REMOVE,
        activation=Activation.LOAD,
        generation=1,
        attempt=1,
        expires=0,
        deadline_seconds=1,
    )
    assert from_json(Command, {**to_json(command), "of_a_newer_version": 1}) == command
