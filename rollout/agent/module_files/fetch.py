"""Downloads a package to a temporary file, and checks its length and SHA-256 on the way."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request

from rollout.agent.control_plane.api import opener, proof_of, url_of
from rollout.agent.control_plane.trust import Trust
from rollout.agent.deadline import Deadline
from rollout.agent.failure import Failure
from rollout.messages import Package, Reason

#: The longest time to connect, and between two chunks, seconds.
SILENCE_SECONDS = 30.0
#: How often the deadline and a cancel are checked while nothing arrives, seconds.
POLL_SECONDS = 0.2
CHUNK = 256 * 1024
#: An API or a storage that is being restarted is asked again for so long, with pauses, seconds.
RESTART_SECONDS = 15.0
RETRY_SECONDS = 0.5
#: Answers of a proxy whose API is being restarted.
AWAY = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}


class _AwayError(Failure):
    """Nothing, or not everything, was received now. It may be received in a moment."""


def fetch(package: Package, to: Path, *, trust: Trust, deadline: Deadline) -> None:
    """Write the package's bytes to `to`. Raises: `Failure` (fetch_failed, checksum_mismatch, node_deadline)."""
    end = time.monotonic() + RESTART_SECONDS
    while True:
        try:
            _fetch(package, to, trust, deadline)
        except _AwayError:
            if time.monotonic() > end:
                raise
            time.sleep(min(RETRY_SECONDS, deadline.remaining()))
        else:
            return


def _fetch(package: Package, to: Path, trust: Trust, deadline: Deadline) -> None:
    digest, received = hashlib.sha256(), 0
    with to.open("wb") as file:
        for chunk in _chunks(package, trust, deadline):
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


def _chunks(package: Package, trust: Trust, deadline: Deadline) -> Iterator[bytes]:
    try:
        with _answer(package, trust, deadline) as response, _cut_off(response, deadline):
            if response.status != HTTPStatus.OK:
                raise _refused(package, response)
            while chunk := response.read1(CHUNK):
                deadline.remaining()
                yield chunk
            deadline.remaining()
            if response.length:  # the peer has closed it early
                raise IncompleteRead(b"", response.length)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: the URL is not valid
        deadline.remaining()
        # Messages of http.client quote the URL, and it is a credential.
        words = str(error.reason if isinstance(error, URLError) else error) if isinstance(error, OSError) else ""
        reason = error.reason if isinstance(error, URLError) else error
        is_away = isinstance(reason, (ConnectionError, TimeoutError, IncompleteRead))
        raise (_AwayError if is_away else Failure)(
            Reason.FETCH_FAILED,
            f"The package could not be fetched from {_host(package)}: {words or type(error).__name__}.",
        ) from error


def _answer(package: Package, trust: Trust, deadline: Deadline) -> HTTPResponse:
    url = package.url if "://" in package.url else url_of(trust.settings, package.url)
    _refuse_other_hosts(url, trust)
    headers = {"User-Agent": "modfleet-agent", **proof_of(trust, url)}
    request = Request(url, headers=headers)  # noqa: S310 - the opener knows http(s) only
    timeout = min(SILENCE_SECONDS, deadline.remaining())
    response: HTTPResponse = opener(trust.settings.control_ca).open(request, timeout=timeout)
    return response


def _refuse_other_hosts(url: str, trust: Trust) -> None:
    """Raises: `Failure` (fetch_failed) if the URL leads to a host that the control plane has not named."""
    if trust.identity is None:
        return
    host = urlsplit(url).hostname
    if host not in {urlsplit(trust.settings.control_url).hostname, *trust.identity.fetch_hosts}:
        trust.learn_keys()  # the control plane may have another storage since
    if host not in {urlsplit(trust.settings.control_url).hostname, *trust.identity.fetch_hosts}:
        raise Failure(
            Reason.FETCH_FAILED, f"The package is at {host}, which is neither the control plane nor its storage."
        )


@contextmanager
def _cut_off(response: HTTPResponse, deadline: Deadline) -> Iterator[None]:
    """End `response` for its reader as soon as the deadline passes, or the operation is canceled."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            try:
                deadline.remaining()
            except Failure:
                with suppress(OSError):  # the peer has closed it already
                    connection.shutdown(socket.SHUT_RDWR)
                return

    with socket.socket(fileno=os.dup(response.fileno())) as connection:
        watcher = threading.Thread(target=watch, name="cut-off", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def _refused(package: Package, response: HTTPResponse) -> Failure:
    hints: dict[int, str] = {
        HTTPStatus.FORBIDDEN: "the link has expired or is for another node",
        HTTPStatus.NOT_FOUND: "the storage no longer has it; upload the same package again",
        HTTPStatus.GONE: "the storage no longer has it; upload the same package again",
    }
    hint = hints.get(response.status, "see the log of the control plane")
    answer = f"{response.status} {response.reason}".strip()
    kind = _AwayError if response.status in AWAY else Failure
    return kind(Reason.FETCH_FAILED, f"{_host(package)} answered {answer} instead of the package: {hint}.")


def _host(package: Package) -> str:
    """Return the host of the package's URL. The URL is a credential, so messages must not contain it."""
    try:
        return urlsplit(package.url).hostname or "the control plane"
    except ValueError:
        return "an invalid URL"
