"""A package from the control plane to a temporary file: its length and SHA-256 are checked while it streams."""

import functools
import hashlib
import ssl
from http import HTTPStatus
from pathlib import Path

import httpx

from rollout.agent.deadline import Deadline
from rollout.agent.failure import Failure
from rollout.agent.settings import AgentSettings
from rollout.messages import Package, Reason

#: Seconds to connect, and between two chunks.
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 30.0


def fetch(package: Package, to: Path, *, settings: AgentSettings, deadline: Deadline) -> None:
    """`to` holds the package's bytes, unchanged. Raises: `Failure` (fetch_failed, checksum_mismatch, node_deadline)."""
    try:
        with _client(settings, deadline) as client, client.stream("GET", package.url) as response:
            if response.status_code != HTTPStatus.OK:
                raise _refused(response)
            _receive(response, package, to, deadline)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        deadline.remaining()
        words = str(error) or type(error).__name__
        raise Failure(
            Reason.FETCH_FAILED, f"The package could not be fetched from {_host(package)}: {words}."
        ) from error


def _client(settings: AgentSettings, deadline: Deadline) -> httpx.Client:
    seconds = deadline.remaining()
    return httpx.Client(
        base_url=settings.control_url,
        verify=_trust(settings.control_ca),
        headers={"Accept-Encoding": "identity"},
        timeout=httpx.Timeout(min(SILENCE_SECONDS, seconds), connect=min(CONNECT_SECONDS, seconds)),
    )


@functools.cache  # reading all public authorities takes longer than fetching a small module
def _trust(control_ca: Path | None) -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    if control_ca:
        context.load_verify_locations(control_ca)
    return context


def _receive(response: httpx.Response, package: Package, to: Path, deadline: Deadline) -> None:
    digest, received = hashlib.sha256(), 0
    with to.open("wb") as file:
        for chunk in response.iter_raw():
            deadline.remaining()
            received += len(chunk)
            if received > package.size:
                raise Failure(
                    Reason.CHECKSUM_MISMATCH, f"The package is longer than the {package.size} bytes uploaded."
                )
            digest.update(chunk)
            file.write(chunk)
    if received != package.size or digest.hexdigest() != package.package_sha256:
        raise Failure(
            Reason.CHECKSUM_MISMATCH,
            f"The package differs from what was uploaded ({received} of {package.size} bytes, "
            f"SHA-256 {digest.hexdigest()}): it was damaged on the way or in the storage.",
        )


def _refused(response: httpx.Response) -> Failure:
    hints: dict[int, str] = {
        HTTPStatus.FORBIDDEN: "the link has expired or is for another node",
        HTTPStatus.NOT_FOUND: "the artifact is gone",
        HTTPStatus.GONE: "the artifact is gone",
    }
    hint = hints.get(response.status_code, "see the log of the control plane")
    answer = f"{response.status_code} {response.reason_phrase}".strip()
    return Failure(Reason.FETCH_FAILED, f"{response.url.host} answered {answer} instead of the package: {hint}.")


def _host(package: Package) -> str:
    """Where the package lies; its URL is a credential and does not belong into messages."""
    try:
        return httpx.URL(package.url).host or "the control plane"
    except httpx.InvalidURL:
        return "a URL that is none"
