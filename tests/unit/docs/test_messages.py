"""docs/reference/messages.md says how a message is signed: enough for a program that shares no code with ours."""

import base64
import hashlib
import hmac
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rollout.messages import HEARTBEATS, REPORTS, Capability, cancel_queue_for, queue_for
from rollout.signing import ControlSecret, Envelope, NodeSecret, Purpose

PAGE = (Path(__file__).parents[3] / "docs/reference/messages.md").read_text()
CONTROL, NODE = ControlSecret("a secret key"), NodeSecret.generate()


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def covered(envelope: Envelope) -> bytes:
    names = ("protocol", "purpose", "node", "key", "peer", "payload")
    return "\0".join(["modfleet", *(str(getattr(envelope, name)) for name in names)]).encode()


def test_a_command_is_verified_as_the_page_says():
    envelope = CONTROL.sign(Purpose.EXECUTE, "n1", {"a": 1})
    Ed25519PublicKey.from_public_bytes(decoded(CONTROL.public.signing)).verify(
        decoded(envelope.signature), covered(envelope)
    )
    keys = decoded(CONTROL.public.signing) + decoded(CONTROL.public.agreement)
    assert (envelope.key, envelope.peer) == (hashlib.sha256(keys).hexdigest()[:16], "")


def test_a_node_signs_as_the_page_says():
    envelope = NODE.sign(Purpose.REPORTS, "n1", {"reports": []}, to=CONTROL.public)
    peer = X25519PublicKey.from_public_bytes(decoded(CONTROL.public.agreement))
    shared = X25519PrivateKey.from_private_bytes(NODE.private).exchange(peer)
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"modfleet 1 node messages").derive(shared)
    assert decoded(envelope.signature) == hmac.digest(key, covered(envelope), "sha256")
    assert envelope.key == hashlib.sha256(decoded(NODE.public)).hexdigest()[:16]
    assert envelope.peer == CONTROL.public.id


def test_the_page_names_every_purpose_queue_and_capability():
    names = [*Purpose, *Capability, queue_for("<name>"), cancel_queue_for("<name>"), REPORTS, HEARTBEATS]
    assert [each for each in names if f"`{each}`" not in PAGE] == []
