"""A host that joins: it makes its key and its broker password, and signs what it sends."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec

from rollout.delivery import ingestion
from rollout.messages import Heartbeat, Inventory, NodeProfile
from rollout.queries.join_tokens import read_token, token_text
from rollout.queries.trust import control_secrets
from rollout.services.enrolment import NewIdentity, enrol
from rollout.signing import Envelope, NodeSecret, Purpose
from tests.recorded_fleet import PLATFORM, next_sequence


@dataclass(frozen=True, kw_only=True)
class Host:
    name: str
    secret: NodeSecret = field(default_factory=NodeSecret.generate)
    password: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def password_sha256(self) -> str:
        return sha256(self.password.encode()).hexdigest()

    def sign(self, purpose: Purpose, message: Any) -> Envelope:
        return self.secret.sign(purpose, self.name, message, to=control_secrets()[0].public)

    def request(self, token: str, **changes: Any) -> dict[str, Any]:
        """The body of POST /v2/enrolment. `token`: its text."""
        body = {"public_key": self.secret.public, "broker_password_sha256": self.password_sha256}
        proof = self.sign(Purpose.ENROL, {**body, "token_id": token.split(".")[1]}).signature
        return {"token": token, "node": self.name, **body, "proof": proof, **changes}

    def join(self, token: str) -> bool:
        """Exchange the token with this id. Return what `enrol` returns."""
        return enrol(new_identity(self.request(token_text(token))))

    def rekey(self, new: "Host", *, sent_at: float | None = None) -> dict[str, Any]:
        """The body of POST /v2/enrolment/keys."""
        message = {
            "public_key": new.secret.public,
            "broker_password_sha256": new.password_sha256,
            "sent_at": time.time() if sent_at is None else sent_at,
        }
        body: dict[str, Any] = msgspec.to_builtins(self.sign(Purpose.REKEY, message))
        return body

    def say_hello(self) -> None:
        heartbeat = Heartbeat(
            node=self.name,
            hello=True,
            interval_seconds=30.0,
            profile=NodeProfile(platform=PLATFORM),
            inventory=Inventory(sequence=next_sequence(), modules=()),
            sent_at=time.time(),
        )
        ingestion.record_heartbeats([msgspec.to_builtins(self.sign(Purpose.HEARTBEAT, heartbeat))])


def new_identity(body: Mapping[str, Any]) -> NewIdentity:
    """Return what the body of POST /v2/enrolment asks for."""
    names = ("node", "public_key", "broker_password_sha256", "proof")
    return NewIdentity(token=read_token(body["token"]), **{name: body[name] for name in names})
