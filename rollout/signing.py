"""Signed messages between the control plane and the nodes, and their keys.

An envelope has its message as text. The signature covers this text, the protocol, the purpose, the node and the keys. So a
message cannot be changed, be used for another purpose, or be sent to another node.

The control plane signs with Ed25519. A node signs with HMAC-SHA256, which takes 2 µs instead of 90 µs. Only the node and the
control plane can compute its key: HKDF-SHA256 of X25519 of one's private key and the other's public key.
"""

import base64
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta

import decoding
from rollout.messages import Name

#: The format of messages in envelopes. Protocol 0 is a message without an envelope.
PROTOCOL = 1
#: All formats that this release understands.
PROTOCOLS = (0, PROTOCOL)

#: 32 bytes in base64 for URLs, without padding.
PublicKey = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")]
KeyId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]


class Purpose(StrEnum):
    EXECUTE = "execute"
    CANCEL = "cancel"
    REKEY = "rekey"
    HOLDS = "holds"
    HEARTBEAT = "heartbeat"
    REPORTS = "reports"
    ENROL = "enrol"
    FETCH = "fetch"
    TRUST = "trust"


class UntrustedError(Exception):
    """The message was changed, is from another sender, or is for another purpose, node or protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A signed message. `payload` is JSON. `key` is the id of the sender's key, `peer` that of the recipient's key.

    `peer` is empty if the message is signed with Ed25519: everybody who knows the public key can verify it.
    """

    protocol: Annotated[int, Meta(ge=1, le=1000)]
    purpose: Purpose
    node: Name
    key: KeyId
    peer: Annotated[str, Meta(pattern=r"\A([0-9a-f]{16})?\Z")] = ""
    payload: str
    signature: Annotated[str, Meta(max_length=128)] = ""

    def covered(self) -> bytes:
        """Return the bytes that the signature covers. No field before the payload can contain a NUL."""
        fields = ("modfleet", str(self.protocol), self.purpose, self.node, self.key, self.peer, self.payload)
        return "\0".join(fields).encode()


def envelope_from(body: Any) -> Envelope:
    """Return `body`, checked and typed. It is not verified yet. Raises: `UntrustedError`."""
    try:
        return decoding.convert(body, Envelope)
    except Exception as error:  # a foreign message can contain anything
        raise UntrustedError(f"not an envelope: {error!r:.200}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlKey:
    """The public keys of a control plane: `signing` for Ed25519, `agreement` for X25519."""

    signing: PublicKey
    agreement: PublicKey

    @property
    def id(self) -> str:
        return key_id(self.signing, self.agreement)

    @property
    def fingerprint(self) -> str:
        """Return the start of the keys' SHA-256, as 32 hexadecimal digits. Join tokens have it.

        An id is too short for them: keys with the same id can be found with 2^64 hashes.
        """
        return _digest(self.signing, self.agreement)[:32]

    def verify(self, envelope: Envelope) -> None:
        """Raises: `UntrustedError` if the envelope is not signed with this key."""
        try:
            signature = from_text(envelope.signature)
            Ed25519PublicKey.from_public_bytes(from_text(self.signing)).verify(signature, envelope.covered())
        except (InvalidSignature, ValueError) as error:
            raise UntrustedError("the signature is not valid") from error
        if to_text(signature) != envelope.signature:  # base64 has several texts for some bytes
            raise UntrustedError("the signature is not valid")


class ControlSecret:
    """The private keys of a control plane. Each of its processes derives them from the same secret key."""

    def __init__(self, secret_key: str) -> None:
        self._signing = Ed25519PrivateKey.from_private_bytes(_derived(secret_key.encode(), "control signing"))
        self._agreement = _derived(secret_key.encode(), "control agreement")
        self.public = ControlKey(
            signing=to_text(self._signing.public_key().public_bytes_raw()), agreement=_public(self._agreement)
        )

    def sign(self, purpose: Purpose, node: str, message: Any) -> Envelope:
        """Return `message`, which is JSON, signed for `node`."""
        unsigned = Envelope(protocol=PROTOCOL, purpose=purpose, node=node, key=self.public.id, payload=_json(message))
        return replace(unsigned, signature=to_text(self._signing.sign(unsigned.covered())))

    def is_from(self, envelope: Envelope, node_key: str) -> bool:
        """Return True if the envelope says that it is from `node_key` to this key."""
        return envelope.peer == self.public.id and envelope.key == key_id(node_key)

    def verify(self, envelope: Envelope, node_key: str) -> None:
        """Raises: `UntrustedError` if the envelope is not from the node with the public key `node_key`, or not to this key."""
        if not self.is_from(envelope, node_key):
            raise UntrustedError("another key")
        _compare(envelope, _shared(self._agreement, node_key))


@dataclass(frozen=True, kw_only=True)
class NodeSecret:
    """The private key of a node."""

    private: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> "NodeSecret":
        return cls(private=X25519PrivateKey.generate().private_bytes_raw())

    @cached_property
    def public(self) -> str:
        return _public(self.private)

    def sign(self, purpose: Purpose, node: str, message: Any, *, to: ControlKey) -> Envelope:
        """Return `message`, which is JSON, signed for the control plane."""
        unsigned = Envelope(
            protocol=PROTOCOL, purpose=purpose, node=node, key=key_id(self.public), peer=to.id, payload=_json(message)
        )
        return replace(unsigned, signature=_mac(unsigned, _shared(self.private, to.agreement)))


def opened(envelope: Envelope, purpose: Purpose, node: str, trusted: Iterable[ControlKey]) -> Any:
    """Return the control plane's message to `node`, read from JSON. Raises: `UntrustedError`."""
    require(envelope, purpose, node)
    signer = next((each for each in trusted if each.id == envelope.key), None)
    if signer is None:
        raise UntrustedError(f"the key {envelope.key} is not known")
    signer.verify(envelope)
    return read(envelope)


def require(envelope: Envelope, purpose: Purpose, node: str) -> None:
    """Raises: `UntrustedError` if the envelope is for another purpose, node or protocol."""
    if (envelope.purpose, envelope.node) != (purpose, node):
        raise UntrustedError(f"{envelope.purpose} for {envelope.node} instead of {purpose} for {node}")
    if envelope.protocol not in PROTOCOLS:
        raise UntrustedError(f"protocol {envelope.protocol} is not known")


def read(envelope: Envelope) -> Any:
    """Return the message of a verified envelope, read from JSON. Raises: `UntrustedError`."""
    try:
        return msgspec.json.decode(envelope.payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UntrustedError(f"the payload is not JSON: {error}") from error


def key_id(*public_keys: str) -> str:
    """Return the id of a key: the start of its SHA-256, as 16 hexadecimal digits."""
    return _digest(*public_keys)[:16]


def to_text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """Raises: `ValueError`."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def is_public_key(text: str) -> bool:
    """Return True if `text` is a public key of a node that can be used. A key has only one text."""
    try:
        _shared(_derived(b"", "probe"), text)
        return to_text(from_text(text)) == text
    except ValueError:  # wrong characters or length, or a point of low order
        return False


def _digest(*public_keys: str) -> str:
    return sha256(b"".join(from_text(each) for each in public_keys)).hexdigest()


def _json(message: Any) -> str:
    return msgspec.json.encode(message).decode()


def _mac(envelope: Envelope, key: bytes) -> str:
    return to_text(hmac.digest(key, envelope.covered(), "sha256"))


def _compare(envelope: Envelope, key: bytes) -> None:
    try:
        is_valid = hmac.compare_digest(_mac(envelope, key).encode(), envelope.signature.encode())
    except ValueError as error:  # half of a surrogate pair
        raise UntrustedError("the message cannot be encoded") from error
    if not is_valid:
        raise UntrustedError("the signature is not valid")


@lru_cache(maxsize=20_000)  # 32 bytes for each node instead of 60 µs for each message
def _shared(private: bytes, public: str) -> bytes:
    secret = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(from_text(public)))
    return _derived(secret, "node messages")


@lru_cache(maxsize=64)
def _public(private: bytes) -> str:
    return to_text(X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())


def _derived(secret: bytes, what: str) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=f"modfleet 1 {what}".encode()).derive(secret)
