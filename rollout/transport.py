"""The Redis transport for queues that others write to: it drops and counts envelopes that cannot be read.

kombu decodes the envelope of a message (JSON with body, headers and properties) while it reads the queue. An unreadable
envelope raises there, outside of every `on_decode_error`: a consumer loses its connection, a worker ends. So this
transport checks and rewrites each item before kombu reads it. A dropped item costs as much as an empty queue: one read.

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
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

import decoding
from rollout.messages import HEARTBEATS, REPORTS

logger = logging.getLogger(__name__)

#: The longest item that is read, bytes. The longest command, for a package of 1,000 files, has a tenth of that.
LONGEST_ITEM = 4 * 1024 * 1024
#: The same for queues that nodes write to. An inventory of 1,000 modules has a third of that.
LONGEST_NODE_ITEM = 512 * 1024
#: The shortest time between two log lines about dropped messages, seconds.
LOG_SECONDS = 10.0


class _Properties(msgspec.Struct):
    """`body_encoding` is always base64, as kombu writes it. The address is not read: the queue is known."""

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
    """The item is not a valid envelope."""


def checked(queue: str, item: bytes) -> bytes:
    """Return the envelope `item` of `queue`, rewritten so that kombu can read it. Raises: `UnreadableError`.

    The address is replaced: kombu returns a rejected message to the address in its envelope, with the rights of the
    process that has read it. Otherwise a node could make the control plane write to another node's queue.
    """
    longest = LONGEST_NODE_ITEM if queue in {REPORTS, HEARTBEATS} else LONGEST_ITEM
    if len(item) > longest:
        raise UnreadableError(f"{len(item)} bytes, at most {longest}")
    try:
        envelope = decoding.decode(item, _Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError(str(error) or type(error).__name__) from error
    if "compression" in envelope.headers:  # kombu unpacks at once, without a limit
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
    """Counts dropped messages by queue and reason, and logs a line now and then. Threads may share one object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._unlogged = 0
        self._logged_at = -LOG_SECONDS

    def note(self, queue: str, reason: str, words: object) -> None:
        with self._lock:
            self._counts[queue, reason] += 1
            self._unlogged += 1
            if time.monotonic() - self._logged_at < LOG_SECONDS:
                return
            unlogged, self._unlogged, self._logged_at = self._unlogged, 0, time.monotonic()
        logger.warning("Dropped %d messages; the last one, from %s, was %s: %.500s", unlogged, queue, reason, words)

    def take(self) -> Mapping[tuple[str, str], int]:
        """Return and reset the counts."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def put_back(self, counts: Mapping[tuple[str, str], int]) -> None:
        with self._lock:
            self._counts.update(counts)


#: The counts of this process.
DROPPED = Dropped()


class LostError(RedisConnectionError, BrokenPipeError):
    """A message could not be acknowledged. Celery connects again only for a `BrokenPipeError`. After any other error it goes
    on, and receives nothing more: it counts the message as unacknowledged, and may have only one."""


class QoS(redis.QoS):
    channel: "Channel"

    def ack(self, delivery_tag: str) -> None:
        """Raises: `LostError`."""
        try:
            super().ack(delivery_tag)
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise LostError(str(error)) from error

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Do nothing in an agent: at each connection, it takes its unacknowledged command back itself.

        kombu's way needs a lock that a script releases, and nodes may not run scripts on the broker.
        """
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
        # CLIENT SETINFO exists since Redis 7.2: Redis 7.0 does not start with an ACL file that allows it.
        return {**super()._connparams(asynchronous), "driver_info": None}  # type: ignore[misc]  # missing in the stubs

    def _read(self, answer: Any, **_: Any) -> tuple[bytes, bytes] | None:
        """Return the answer of BRPOP; None, as for an empty queue, if it cannot be read."""
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
    """Celery's consumer. It drops and counts a message that Celery cannot handle, instead of ending."""

    connection_errors: tuple[type[Exception], ...]

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **options)

        def guarded(message: Any) -> None:
            try:
                handle(message)
            except (OSError, RedisError):  # the broker is away; kombu's own list contains every KeyError
                raise
            except Exception as error:  # noqa: BLE001 - a foreign message can make Celery raise anything
                DROPPED.note(message.delivery_info["routing_key"], "malformed", repr(error))
                if not message.acknowledged:
                    message.reject_log_error(logger, self.connection_errors)

        return guarded
