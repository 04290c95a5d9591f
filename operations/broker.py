"""Asks the broker if it answers, and how many messages wait in its queues. Short timeouts, and no retries."""

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from celery import current_app
from kombu.exceptions import OperationalError
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from rollout import tls
from rollout.messages import HEARTBEATS, REPORTS, queue_for

#: The longest time of each step, and of all steps together, seconds.
STEP_SECONDS = 1.0
TOTAL_SECONDS = 3.0
#: How many queue lengths are read in one round trip.
BATCH = 1000
CONTROL_QUEUES = (REPORTS, HEARTBEATS, "control.tasks")


class BrokerAwayError(Exception):
    """The broker does not answer. `is_untrusted`: its certificate is not trusted."""

    def __init__(self, message: str, *, is_untrusted: bool = False) -> None:
        super().__init__(message)
        self.is_untrusted = is_untrusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Depths:
    """The messages in each of `CONTROL_QUEUES`, in the queues of all nodes together, and in the longest of these."""

    control: dict[str, int]
    nodes: int
    longest_node: int


def ping() -> None:
    """Check that the broker answers. Raises: `BrokerAwayError`."""
    url = current_app.conf.broker_url
    if not _is_redis(url):
        _connect(url)
        return
    try:
        with _client(url) as client:
            client.ping()
    except (RedisError, OSError) as error:
        raise _away(error) from error


def depths(nodes: Sequence[str]) -> Depths | None:
    """Return the lengths of all queues. None if the broker is not Redis or Valkey: others cannot answer in one round trip.

    Raises: `BrokerAwayError`.
    """
    url = current_app.conf.broker_url
    if not _is_redis(url):
        _connect(url)
        return None
    try:
        with _client(url) as client:
            end = time.monotonic() + TOTAL_SECONDS
            control = dict(zip(CONTROL_QUEUES, _lengths(client, CONTROL_QUEUES), strict=True))
            lengths: list[int] = []
            for start in range(0, len(nodes), BATCH):
                if time.monotonic() > end:
                    raise BrokerAwayError(f"The lengths of its queues did not arrive within {TOTAL_SECONDS:g} s.")
                lengths += _lengths(client, map(queue_for, nodes[start : start + BATCH]))
    except (RedisError, OSError) as error:
        raise _away(error) from error
    return Depths(control=control, nodes=sum(lengths), longest_node=max(lengths, default=0))


def _away(error: Exception) -> BrokerAwayError:
    words = f"The broker cannot be reached: {tls.in_words(error, 'MODFLEET_BROKER_CA')}."
    return BrokerAwayError(words, is_untrusted=tls.untrusted(error) is not None)


def _lengths(client: "Redis", queues: Iterable[str]) -> list[int]:
    with client.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.llen(queue)
        return [int(each) for each in pipeline.execute()]


def _is_redis(url: str) -> bool:
    return url.startswith(("redis://", "rediss://", "redis+socket://"))


def _client(url: str) -> "Redis":
    """Return our own client: that of kombu retries for seconds."""
    spoken = url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=")
    spoken = re.sub(r"ssl_cert_reqs=CERT_(\w+)", lambda found: f"ssl_cert_reqs={found[1].lower()}", spoken)
    return Redis.from_url(
        spoken, socket_timeout=STEP_SECONDS, socket_connect_timeout=STEP_SECONDS, retry=Retry(NoBackoff(), 0)
    )


def _connect(url: str) -> None:
    try:
        with current_app.connection_for_read(url=url, connect_timeout=STEP_SECONDS) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    except (OperationalError, OSError) as error:
        raise _away(error) from error
