"""The Redis transport for what others write: an envelope that cannot be read is dropped alone, and counted.

kombu decodes the envelope of a message (JSON with body, headers and properties) while it reads the queue. One that it
cannot read raises there, outside of every `on_decode_error`: a consumer loses its connection, a worker ends. Here each
item is checked and written anew before kombu sees it. A dropped one costs what an empty queue costs: the next read.

`register` makes this the transport of every `redis://`, `rediss://` and `redis+socket://` address of the process.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from celery.worker.consumer import Consumer
from kombu.transport import TRANSPORT_ALIASES, redis
from msgspec import Meta
from redis.exceptions import RedisError

from rollout.messages import HEARTBEATS, REPORTS

logger = logging.getLogger(__name__)

#: The longest item of a queue that is read, bytes. The longest command, a package of 1,000 files, has a tenth of that.
LONGEST_ITEM = 4 * 1024 * 1024
#: The same for what any node may write. An inventory of 1,000 modules has a third of that.
LONGEST_SAID = 512 * 1024
#: Seconds between two lines of the log about what was dropped.
QUIET_SECONDS = 10.0


class _Properties(msgspec.Struct):
    """`body_encoding` is always base64: what kombu writes. Where it was sent to is not asked, but known."""

    delivery_tag: Annotated[str, Meta(min_length=1, max_length=64)]
    body_encoding: Literal["base64"]
    correlation_id: Annotated[str, Meta(max_length=255)] | None = None


class _Envelope(msgspec.Struct, rename={"content_type": "content-type", "content_encoding": "content-encoding"}):
    body: bytes
    content_type: Literal["application/json"]
    content_encoding: Literal["utf-8"]
    properties: _Properties
    headers: dict[str, Any] = {}


class UnreadableError(Exception):
    """The item is no envelope of ours."""


def checked(queue: str, item: bytes) -> bytes:
    """The envelope `item` of `queue`, with nothing in it that kombu could stumble over. Raises: `UnreadableError`.

    The address is written anew: kombu puts a message that it gives back where its envelope says, with the rights of
    the process that had read it. A node could have the control plane write into another node's queue.
    """
    longest = LONGEST_SAID if queue in {REPORTS, HEARTBEATS} else LONGEST_ITEM
    if len(item) > longest:
        raise UnreadableError(f"{len(item)} bytes, at most {longest}")
    try:
        envelope = msgspec.json.decode(item, type=_Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError(str(error) or type(error).__name__) from error
    if "compression" in envelope.headers:  # kombu unpacks at once, however much that makes
        raise UnreadableError("compressed")
    properties: dict[str, Any] = msgspec.to_builtins(envelope.properties)
    properties["delivery_info"] = {"exchange": "", "routing_key": queue}
    again = msgspec.json.encode(
        {
            "body": envelope.body,
            "content-type": envelope.content_type,
            "content-encoding": envelope.content_encoding,
            "headers": envelope.headers,
            "properties": properties,
        }
    )
    if b'"__type__":' in again:  # kombu makes Python values of such objects, or raises
        raise UnreadableError("a typed value in the headers")
    return again


class Dropped:
    """Counts what was dropped, by queue and reason, and says so in the log now and then. For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._unsaid = 0
        self._said_at = -QUIET_SECONDS

    def note(self, queue: str, reason: str, words: object) -> None:
        with self._lock:
            self._counts[queue, reason] += 1
            self._unsaid += 1
            if time.monotonic() - self._said_at < QUIET_SECONDS:
                return
            unsaid, self._unsaid, self._said_at = self._unsaid, 0, time.monotonic()
        logger.warning("Dropped %d messages; the last one, from %s, was %s: %.500s", unsaid, queue, reason, words)

    def take(self) -> Mapping[tuple[str, str], int]:
        """What was counted since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def put_back(self, counts: Mapping[tuple[str, str], int]) -> None:
        with self._lock:
            self._counts.update(counts)


#: Of this process.
DROPPED = Dropped()


class QoS(redis.QoS):
    channel: "Channel"

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Nothing for an agent: it takes back at each connection what it had not acknowledged, and kombu's way needs a
        lock that is released by a script. No node may run scripts on the broker."""
        if self.channel.restores_visible:
            super().restore_visible(*args, **options)


class Channel(redis.Channel):
    QoS = QoS
    from_transport_options = (*redis.Channel.from_transport_options, "restores_visible")
    restores_visible = True

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous)  # type: ignore[misc]  # missing in the stubs
        client.set_response_callback("BRPOP", self._read)
        return client

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        # CLIENT SETINFO exists since Redis 7.2: an ACL file that allows it keeps a Redis 7.0 from starting.
        return {**super()._connparams(asynchronous), "driver_info": None}  # type: ignore[misc]  # missing in the stubs

    def _read(self, answer: Any, **_: Any) -> tuple[bytes, bytes] | None:
        """What BRPOP answered; None, as of an empty queue, if it cannot be read."""
        if not answer:
            return None
        key, item = answer
        queue = key.decode(errors="replace").rsplit(self.sep, 1)[0]
        try:
            return key, checked(queue, item)
        except UnreadableError as error:
            DROPPED.note(queue, "unreadable", error)
            return None


class Transport(redis.Transport):
    Channel = Channel


def register() -> None:
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))


class TaskConsumer(Consumer):
    """Celery's consumer, which outlives a message that Celery cannot handle: it is dropped and counted."""

    connection_errors: tuple[type[Exception], ...]

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **options)

        def guarded(message: Any) -> None:
            try:
                handle(message)
            except (OSError, RedisError):  # the broker is away; kombu's own list has every KeyError in it
                raise
            except Exception as error:  # noqa: BLE001 - what a stranger's message makes Celery raise has no end
                DROPPED.note(message.delivery_info["routing_key"], "malformed", repr(error))
                if not message.acknowledged:
                    message.reject_log_error(logger, self.connection_errors)

        return guarded
