"""Replaces the node's key and its password at the broker, without a moment in which none is valid."""

import logging
import secrets
import time
from hashlib import sha256

from rollout.agent.control_plane.api import add_key
from rollout.agent.control_plane.identity import Credentials
from rollout.agent.control_plane.trust import Trust
from rollout.signing import NodeSecret, Purpose, UntrustedError, key_id, to_text

log = logging.getLogger(__name__)


def new_credentials() -> Credentials:
    """Return a new key and a new password: 32 random bytes each."""
    return Credentials(private_key=to_text(NodeSecret.generate().private), broker_password=secrets.token_urlsafe(32))


def password_hash(credentials: Credentials) -> str:
    return sha256(credentials.broker_password.encode()).hexdigest()


def rotate(trust: Trust, *, replaces: str) -> bool:
    """Replace the credentials, if their key has the id `replaces`. Return False if they were not replaced.

    The control plane accepts both keys until it hears the new one. It asks again until then.
    """
    if trust.identity is None or key_id(trust.identity.credentials.secret.public) != replaces:
        return False
    try:
        identity, upcoming = trust.begin_rotation(new_credentials)
        message = {
            "public_key": upcoming.secret.public,
            "broker_password_sha256": password_hash(upcoming),
            "sent_at": time.time(),
        }
        add_key(trust.settings, identity.sign(Purpose.REKEY, message))
        trust.end_rotation()
    except (OSError, UntrustedError) as error:
        log.warning("The node's key could not be replaced: %s", error)
        return False
    log.info("The node's key was replaced")
    return True
