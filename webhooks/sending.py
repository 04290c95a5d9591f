"""One attempt to deliver an event: a signed POST, according to the Standard Webhooks specification."""

import asyncio
import time
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import msgspec

from api.events import event_document
from eventstore import RecordedEvent
from webhooks.signature import signature

#: The longest time of an attempt, from the DNS lookup to the end of the answer, seconds.
TIMEOUT_SECONDS = 10.0
#: So much of an answer's body is read and discarded, so that the connection can be reused, bytes.
MAX_ANSWER_BYTES = 65_536


def new_client() -> httpx.AsyncClient:
    """Return a client that keeps no cookies, and follows no redirects: a receiver must not redirect its events."""
    return httpx.AsyncClient(
        follow_redirects=False,
        timeout=None,  # noqa: S113  # `send` has a timeout for the whole attempt
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        headers={"User-Agent": "modfleet-webhooks"},
    )


def message_id(envelope: RecordedEvent) -> str:
    """Return the message ID. It is the same for every attempt to deliver the event."""
    return f"msg_{envelope.event_id.hex}"


async def send(client: httpx.AsyncClient, envelope: RecordedEvent, *, url: str, secret: str) -> str | None:
    """Send the event. Return None after a 2xx answer, or else the reason of the failure."""
    body = msgspec.json.encode(event_document(envelope))
    timestamp = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message_id(envelope),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, message_id=message_id(envelope), timestamp=timestamp, body=body),
    }
    try:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            await _drain(response)
    except TimeoutError:
        return f"no whole answer within {TIMEOUT_SECONDS:.0f} s"
    except httpx.RemoteProtocolError:  # its text quotes the answer, which may be from any server
        return "the answer is not HTTP, or ended too soon"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    return None if response.is_success else f"answered {response.status_code}"


async def _drain(response: httpx.Response) -> None:
    async for _ in response.aiter_raw():
        if response.num_bytes_downloaded > MAX_ANSWER_BYTES:
            return
