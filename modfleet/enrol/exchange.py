"""The exchange of a join token for a place in the fleet, over HTTP. The key and the password never leave this host."""

import ssl
from dataclasses import dataclass, field
from hashlib import sha256
from http.client import BadStatusLine, HTTPException
from ipaddress import ip_address
from typing import TypeVar
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, UnknownHandler

import msgspec

import decoding
from modfleet.enrol.join_token import JoinToken
from modfleet.failure import CommandError, ExitCode, UsageError
from rollout.agent.control_plane.identity import Credentials
from rollout.messages import Name
from rollout.signing import ControlKey, Purpose

PATH = "/v2/enrolment"
#: The longest time to connect, and between two parts of an answer, seconds.
SILENCE_SECONDS = 30.0
#: The control plane's answers are shorter, bytes.
LONGEST_ANSWER = 1024 * 1024

Answer = TypeVar("Answer")


class UnreachableError(CommandError):
    """No answer of the control plane arrived."""

    code = ExitCode.UNREACHABLE


class RefusedError(CommandError):
    """The control plane refused the exchange. The same token and key would be refused again."""

    code = ExitCode.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """A control plane that is the one that the token names. `ca` is PEM."""

    url: str
    keys: tuple[ControlKey, ...]
    ca: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded:
    """Why the node's server cannot be used. `reason` is a code."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """The answer to `POST /v2/enrolment`. `broker_url` has the node's user and no password. `broker_ca` is PEM.

    `phase` is `pending` until the first heartbeat. `identity` is `pending` until a person has accepted the node.
    """

    node: Name
    phase: str
    identity: str
    broker_url: str
    control_keys: tuple[ControlKey, ...]
    broker_ca: str | None = None
    degraded: Degraded | None = None
    fetch_hosts: tuple[str, ...] = ()
    heartbeat_seconds: float = 10.0
    labels: dict[str, str] = field(default_factory=dict)
    observe: bool = False

    @property
    def is_heard(self) -> bool:
        return self.phase not in {"pending", "offline"}

    @property
    def is_examined(self) -> bool:
        """Return True if the agent has examined its host."""
        return self.is_heard and (self.degraded is None or self.degraded.reason != "not_examined")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hello:
    control_keys: tuple[ControlKey, ...]
    ca: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    error_code: str = ""
    description: str = ""


def check_url(url: str, option: str = "--control") -> str:
    """Return `url` without a slash at its end. `http://` is allowed for this host only. Raises: `UsageError` that names `option`."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError(f"{option} {url} is not a URL.") from error
    if parts.scheme not in {"https", "http"} or not host or parts.username or parts.query or parts.fragment:
        raise UsageError(f"{option} must be the URL of the control plane: https://HOST[:PORT].")
    if parts.scheme == "http" and not _is_loopback(host):
        raise UsageError(f"{option} {url} sends the join token unencrypted: use https://{parts.netloc}.")
    return url.rstrip("/")


def meet(url: str, token: JoinToken) -> ControlPlane:
    """Return the control plane at `url`, if it is the one that the token names. Send nothing secret.

    With a private CA, only this request accepts every certificate: the CA that it returns must have the SHA-256 that the
    token names. Raises: `UnreachableError`, `RefusedError`.
    """
    trusts = _unverified() if token.ca_sha256 else ssl.create_default_context()
    hello = _call(Request(f"{url}{PATH}"), trusts, _Hello)  # noqa: S310 - `check_url` allows http(s) only
    if token.ca_sha256 and not (hello.ca and token.accepts_ca(hello.ca)):
        raise RefusedError(f"{url} has another CA than the join token names. Nothing was sent to it. Check --control.")
    if not hello.control_keys or not token.accepts_key(hello.control_keys[0]):
        raise RefusedError(f"{url} has another key than the join token names. Nothing was sent to it. Check --control.")
    return ControlPlane(url=url, keys=hello.control_keys, ca=hello.ca if token.ca_sha256 else None)


def enrol(control: ControlPlane, token: JoinToken, node: str, credentials: Credentials, *, observe: bool) -> Enrolment:
    """Exchange the token. May be repeated with the same key. Raises: `UnreachableError`, `RefusedError`."""
    password = sha256(credentials.broker_password.encode()).hexdigest()
    proven = {
        "public_key": credentials.secret.public,
        "broker_password_sha256": password,
        "token_id": token.id,
    }
    proof = credentials.secret.sign(Purpose.ENROL, node, proven, to=control.keys[0])
    body = {
        "token": token.text,
        "node": node,
        "public_key": credentials.secret.public,
        "broker_password_sha256": password,
        "labels": {},
        "observe": observe,
        "proof": proof.signature,
    }
    request = Request(  # noqa: S310 - `check_url` allows http(s) only
        f"{control.url}{PATH}", data=msgspec.json.encode(body), headers={"Content-Type": "application/json"}
    )
    answer = _call(request, trusting(control.ca), Enrolment)
    if answer.node != node:
        raise RefusedError(f"The control plane enrolled {answer.node} instead of {node}.")
    if control.keys[0] not in answer.control_keys:
        raise RefusedError("The control plane answered with other keys than before. Run the command again.")
    return answer


def trusting(ca: str | None) -> ssl.SSLContext:
    """Return a context that trusts only `ca` (PEM), or the public authorities if it is None. Raises: `RefusedError`."""
    try:
        return ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise RefusedError("The control plane's CA is not a PEM certificate: check its MODFLEET_CONTROL_CA.") from error


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _call(request: Request, context: ssl.SSLContext, kind: type[Answer]) -> Answer:
    """Return the answer as a `kind`. No redirect is followed: it could lead to a host that gets the token."""
    opener = OpenerDirector()
    for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler(context=context), UnknownHandler()):
        opener.add_handler(handler)
    request.add_header("User-Agent", "modfleet-agent")
    try:
        with opener.open(request, timeout=SILENCE_SECONDS) as response:
            status, content = response.status, response.read(LONGEST_ANSWER + 1)
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise UnreachableError(
            f"The control plane at {_place(request)} cannot be reached: {_words(reason, request.type)}."
        ) from error
    if status >= 500:  # its proxy, or a failure that may pass
        raise UnreachableError(
            f"The control plane at {_place(request)} answered {status}. Run the command again later."
        )
    try:
        if status in {200, 201}:
            return decoding.decode(content, kind)
        refusal = decoding.decode(content, _Refusal)
    except msgspec.MsgspecError as error:
        raise RefusedError(f"{_place(request)} answered {status}, but not as a control plane does.") from error
    raise RefusedError(_sentence(status, refusal))


def _sentence(status: int, refusal: _Refusal) -> str:
    steps = {
        "invalid_token": "It is for another name, was used or revoked, or has expired: `modfleet nodes tokens` shows it.",
        "node_exists": "If it is another host, give this one another name: --name, or MODFLEET_NODE for `agent run`.",
    }
    said = " ".join(refusal.description.split()).rstrip(".") or f"status {status}"
    return f"The control plane refused the node: {said}. {steps.get(refusal.error_code, '')}".strip()


def _words(reason: object, scheme: str) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted: {reason.verify_message}. If its authority is your own, set MODFLEET_CONTROL_CA "
            "of the control plane, and create a new token"
        )
    if isinstance(reason, ssl.SSLError) and reason.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS: check the port, and whether the URL is https"
    if scheme == "http" and isinstance(reason, (ConnectionResetError, BadStatusLine)):
        return "it closed the connection: if it speaks TLS, use https://"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return " ".join(str(reason).split()).rstrip(".") or type(reason).__name__


def _place(request: Request) -> str:
    return f"{request.type}://{request.host}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
