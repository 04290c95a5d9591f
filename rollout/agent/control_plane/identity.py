"""The node's identity: its key, its password at the broker, and what it trusts. The agent proves with it who it is."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

import decoding
from durable import write_file
from rollout.agent.failure import AgentError
from rollout.messages import Name
from rollout.signing import ControlKey, Envelope, NodeSecret, Purpose, from_text


class IdentityError(AgentError):
    """The file cannot be used. The message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a node proves its identity with: `private_key` (X25519) to the control plane, `broker_password` to the broker."""

    private_key: str = field(repr=False)
    broker_password: str = field(repr=False)

    @property
    def secret(self) -> NodeSecret:
        return NodeSecret(private=from_text(self.private_key))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """`control_keys` are the public keys of the control plane. `fetch_hosts` are the hosts, besides the control plane's own,
    from which packages may be fetched. `upcoming` are the credentials of a rotation that has not ended."""

    node: Name
    credentials: Credentials
    control_keys: tuple[ControlKey, ...]
    fetch_hosts: tuple[str, ...] = ()
    upcoming: Credentials | None = None

    def sign(self, purpose: Purpose, message: object) -> Envelope:
        """Return `message`, which is JSON, signed for the control plane."""
        return self.credentials.secret.sign(purpose, self.node, message, to=self.control_keys[0])


def read_identity(path: Path) -> Identity:
    """Raises: `IdentityError`."""
    try:
        identity = decoding.decode(path.read_bytes(), Identity)
        keys = [identity.credentials.secret.public, *(each.id for each in identity.control_keys)]
    except OSError as error:
        raise IdentityError(f"The identity {path} cannot be read: {error.strerror}.") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise IdentityError(f"{path} is not an identity. Run `modfleet agent install` with a new token.") from error
    if len(keys) < 2:
        raise IdentityError(f"{path} names no key of the control plane. Run `modfleet agent install` with a new token.")
    return identity


def write_identity(path: Path, identity: Identity) -> None:
    """Replace the file, readable only for its owner. Raises: `OSError`."""
    write_file(path, msgspec.json.encode(identity), mode=0o600)
