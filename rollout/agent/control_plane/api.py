"""The agent's requests to the control plane: packages, its keys, a new key of the node, and what the node has to hold."""

import functools
import ssl
import time
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, UnknownHandler

import msgspec

import decoding
from rollout.agent.control_plane.trust import Trust
from rollout.agent.settings import AgentSettings
from rollout.signing import Envelope, Purpose, to_text

#: The longest time to connect, and to wait for an answer, seconds.
ANSWER_SECONDS = 30.0
#: The longest answer that is read, bytes.
LONGEST_ANSWER = 1_000_000
#: Header with the envelope that proves which node fetches a package.
PROOF = "Modfleet-Proof"


class RefusedByControlPlaneError(OSError):
    """The control plane answered with an error, or with something that is not JSON."""


def url_of(settings: AgentSettings, path: str) -> str:
    return f"{settings.control_url.rstrip('/')}/{path.lstrip('/')}"


def proof_of(trust: Trust, url: str) -> dict[str, str]:
    """Return the header that proves that this node fetches `url`; none if the node has no identity, or for another host."""
    identity = trust.identity
    if identity is None or urlsplit(url).hostname != urlsplit(trust.settings.control_url).hostname:
        return {}
    link = sha256(url.rpartition("/")[2].encode()).hexdigest()
    envelope = identity.sign(Purpose.FETCH, {"link_sha256": link, "sent_at": time.time()})
    return {PROOF: to_text(msgspec.json.encode(envelope))}


def trust_documents(settings: AgentSettings) -> list[Any]:
    """Return the control plane's keys, as envelopes that are not verified yet. Raises: `OSError`."""
    answer = _asked(settings, Request(url_of(settings, "/v2/enrolment")))  # noqa: S310 - the opener knows http(s) only
    if not isinstance(answer.get("trust"), list):
        raise RefusedByControlPlaneError("the control plane's answer has no trust document")
    return list(answer["trust"])


def add_key(settings: AgentSettings, envelope: Envelope) -> None:
    """Send the node's new key, signed with the current one. May be repeated. Raises: `OSError`."""
    _posted(settings, "/v2/enrolment/keys", envelope)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldsAnswer:
    """Whether the server must not become the master, and whether the data from before the operation is still needed."""

    withhold: bool
    keep_data: bool


def ask_holds(settings: AgentSettings, envelope: Envelope) -> HoldsAnswer:
    """Ask what the node still has to hold. Raises: `OSError`."""
    answer = _posted(settings, "/v2/enrolment/holds", envelope)
    try:
        return decoding.convert(answer, HoldsAnswer)
    except msgspec.ValidationError as error:
        raise RefusedByControlPlaneError(f"the control plane's answer cannot be read: {error}") from error


def _posted(settings: AgentSettings, path: str, envelope: Envelope) -> dict[str, Any]:
    body, headers = msgspec.json.encode(envelope), {"Content-Type": "application/json"}
    return _asked(settings, Request(url_of(settings, path), data=body, headers=headers))  # noqa: S310 - the opener knows http(s) only


def _asked(settings: AgentSettings, request: Request) -> dict[str, Any]:
    request.add_header("User-Agent", "modfleet-agent")
    response: HTTPResponse
    try:
        with opener(settings.control_ca).open(request, timeout=ANSWER_SECONDS) as response:
            content = response.read(LONGEST_ANSWER)
    except HTTPException as error:
        raise RefusedByControlPlaneError(f"the control plane does not answer in HTTP: {error!r:.200}") from error
    if response.status != HTTPStatus.OK:
        raise RefusedByControlPlaneError(f"the control plane answered {response.status}: {content[:200]!r}")
    try:
        return decoding.decode(content, dict[str, Any])
    except msgspec.MsgspecError as error:
        raise RefusedByControlPlaneError(f"the control plane's answer cannot be read: {error}") from error


@functools.cache  # reading all public authorities takes longer than fetching a small module
def opener(control_ca: Path | None) -> OpenerDirector:
    """Return an opener for HTTP and HTTPS that follows no redirect, and returns a response of any status.

    It is the standard library's: a client of httpx takes four times the processor time for a package of 3 MB.
    """
    context = ssl.create_default_context()
    if control_ca:
        context.load_verify_locations(control_ca)
    made = OpenerDirector()
    for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler(context=context), UnknownHandler()):
        made.add_handler(handler)
    return made
