"""Who the node is, and whom it believes: signs what the agent sends, verifies what it receives."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

import decoding
from rollout.agent.control_plane.identity import Credentials, Identity, read_identity, write_identity
from rollout.agent.settings import AgentSettings
from rollout.messages import Heartbeat, Reports, to_json
from rollout.signing import ControlKey, Envelope, Purpose, UntrustedError, envelope_from, opened
from rollout.tls import secured

log = logging.getLogger(__name__)

#: The least seconds between two attempts to learn the keys of the control plane.
LEARN_SECONDS = 60.0
#: The recipient of a message that is for all nodes.
ALL_NODES = "all"

_PURPOSES: dict[type, Purpose] = {Heartbeat: Purpose.HEARTBEAT, Reports: Purpose.REPORTS}


class Trust:
    """Without an identity, messages are neither signed nor verified. Threads may share one object.

    `learn` returns the control plane's signed trust documents, to be asked when a message has a key that is not known.
    """

    def __init__(self, settings: AgentSettings, learn: Callable[[], list[Any]] = list) -> None:
        self.settings = settings
        self._learn = learn
        self._lock = threading.Lock()
        self._learned_at = -LEARN_SECONDS
        path = settings.identity_file
        self._identity = None if path is None else read_identity(path)

    @property
    def identity(self) -> Identity | None:
        return self._identity

    def broker_url(self) -> str:
        """Return the broker's URL with the node's user and password, and with the authority that signs its certificate."""
        url = secured(self.settings.broker_url, ca=self.settings.broker_ca)
        if self._identity is None:
            return url
        parts = urlsplit(url)
        user = f"{quote(f'node.{self.settings.node}', safe='')}:{quote(self._identity.credentials.broker_password, safe='')}"
        return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))

    def signed(self, message: Reports | Heartbeat) -> list[Any]:
        """Return the bodies to send, as JSON: one envelope, or the plain messages of a node without an identity."""
        if self._identity is None:
            plain = message.reports if isinstance(message, Reports) else (message,)
            return [to_json(each) for each in plain]
        return [msgspec.to_builtins(self._identity.sign(_PURPOSES[type(message)], message))]

    def opened(self, body: Any, *purposes: Purpose) -> tuple[Purpose, Any]:
        """Return the purpose and the message of an envelope. Nothing of it is used before it is verified.

        Raises: `UntrustedError`.
        """
        if self._identity is None:
            raise UntrustedError("this node has no identity, so it cannot verify a signature")
        envelope = envelope_from(body)
        purpose = envelope.purpose if envelope.purpose in purposes else purposes[0]
        if envelope.key != self._identity.control_keys[0].id:  # it is new, or was removed since
            self.learn_keys()
        return purpose, opened(envelope, purpose, self.settings.node, self._identity.control_keys)

    def learn_keys(self) -> None:
        """Ask the control plane for its keys, at most once in `LEARN_SECONDS`. Only a known key can introduce others."""
        with self._lock:
            if self._identity is None or time.monotonic() - self._learned_at < LEARN_SECONDS:
                return
            self._learned_at = time.monotonic()
            try:
                document = self._first_trusted([envelope_from(each) for each in self._learn()])
                self._keep(replace(self._identity, **document))
            except (OSError, UntrustedError, ValueError) as error:
                log.warning("The keys of the control plane could not be learned: %s", error)

    def begin_rotation(self, make: Callable[[], Credentials]) -> tuple[Identity, Credentials]:
        """Return the identity and the credentials that will replace its own. They are stored first: a crash must not lose a
        key that the control plane knows."""
        with self._lock:
            identity = self._identity
            if identity is None:
                raise UntrustedError("this node has no identity")
            upcoming = identity.upcoming or make()
            if identity.upcoming is None:
                self._keep(replace(identity, upcoming=upcoming))
            return identity, upcoming

    def end_rotation(self) -> None:
        """Use the upcoming credentials from now on. Call this when the control plane has accepted them."""
        with self._lock:
            if self._identity is not None and self._identity.upcoming is not None:
                self._keep(replace(self._identity, credentials=self._identity.upcoming, upcoming=None))

    def _first_trusted(self, envelopes: list[Envelope]) -> dict[str, Any]:
        """Return the trust document that is signed with a known key. Raises: `UntrustedError`, `msgspec.ValidationError`."""
        known = self._identity.control_keys if self._identity else ()
        for each in envelopes:
            if any(key.id == each.key for key in known):
                document = opened(each, Purpose.TRUST, ALL_NODES, known)
                return {
                    "control_keys": decoding.convert(document["control_keys"], tuple[ControlKey, ...]),
                    "fetch_hosts": decoding.convert(document["fetch_hosts"], tuple[str, ...]),
                }
        raise UntrustedError("it signs with no key that this node knows. If its key was lost, join again.")

    def _keep(self, identity: Identity) -> None:
        if self.settings.identity_file is not None and identity != self._identity:
            write_identity(self.settings.identity_file, identity)
        self._identity = identity
