"""An agent uses nothing of a command that is not exactly what the control plane has signed for it."""

import json
import time
from pathlib import Path
from random import Random

import msgspec
import pytest

from rollout.agent.control_plane.identity import Identity, write_identity
from rollout.agent.control_plane.rotation import new_credentials
from rollout.agent.control_plane.trust import Trust
from rollout.agent.settings import settings_from
from rollout.messages import Action, Activation, Command, Member, Package, to_json
from rollout.signing import ControlSecret, Purpose, UntrustedError
from tests.mutations import mutations

CONTROL = ControlSecret("the secret key of the control plane")
ATTACKER = ControlSecret("another secret key")
MUTATIONS = 4_000


def command(node: str, version: int = 1) -> Command:
    member = Member(path="greet.so", size=3, sha256="a" * 64)
    return Command(
        rollout="r1",
        node=node,
        module_name="greet",
        version=version,
        action=Action.INSTALL,
        activation=Activation.LOAD,
        generation=1,
        attempt=1,
        expires=time.time() + 600,
        deadline_seconds=60,
        package=Package(
            url="https://modfleet.example.com/v2/downloads/x",
            size=3,
            package_sha256="b" * 64,
            content_sha256="c" * 64,
            module_file="greet.so",
            members=(member,),
        ),
        incarnation="i1",
    )


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    """What the agent of n1 believes."""
    identity = Identity(node="n1", credentials=new_credentials(), control_keys=(CONTROL.public,))
    write_identity(tmp_path / "identity.json", identity)
    settings = settings_from(
        {
            "MODFLEET_NODE": "n1",
            "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
            "MODFLEET_CONTROL_URL": "https://modfleet.example.com",
            "MODFLEET_SERVER_URL": "unix:///run/redis.sock",
            "MODFLEET_MODULES_DIR": str(tmp_path),
            "MODFLEET_JOURNAL_DIR": str(tmp_path),
            "MODFLEET_IDENTITY_FILE": str(tmp_path / "identity.json"),
        }
    )
    return Trust(settings)


def signed(purpose: Purpose, node: str, version: int = 1, by: ControlSecret = CONTROL):
    return msgspec.to_builtins(by.sign(purpose, node, to_json(command(node, version))))


def test_it_works(trust):
    body = signed(Purpose.EXECUTE, "n1")
    assert trust.opened(body, Purpose.EXECUTE) == (Purpose.EXECUTE, json.loads(body["payload"]))


@pytest.mark.parametrize(
    "body",
    [
        signed(Purpose.EXECUTE, "n2"),
        signed(Purpose.CANCEL, "n1"),
        signed(Purpose.TRUST, "n1"),
        signed(Purpose.EXECUTE, "n1", by=ATTACKER),
        signed(Purpose.EXECUTE, "n1") | {"key": ATTACKER.public.id},
        to_json(command("n1")),
        None,
        [],
        "x",
    ],
    ids=[
        "another node",
        "another purpose",
        "trust",
        "another key",
        "a key that signs nothing",
        "unsigned",
        "none",
        "list",
        "text",
    ],
)
def test_nothing_else_is_opened(trust, body):
    with pytest.raises(UntrustedError):
        trust.opened(body, Purpose.EXECUTE)


def test_no_mutation_is_opened(trust):
    valid = [
        *(signed(Purpose.EXECUTE, node, version) for node in ("n1", "n2") for version in (1, 2)),
        *(signed(Purpose.CANCEL, node) for node in ("n1", "n2")),
        signed(Purpose.EXECUTE, "n1", by=ATTACKER),
    ]
    opened = []
    for _, changed in mutations(valid, Random(20261126), MUTATIONS):
        for purpose in (Purpose.EXECUTE, Purpose.CANCEL):
            try:
                opened.append((changed, trust.opened(changed, purpose)))
            except UntrustedError:
                continue
    assert opened == []
