"""Sends reports and heartbeats to the control plane's queues. If the broker is away, it tries again for a while."""

import logging
import time
from typing import Any

from kombu import Connection, Producer
from kombu.exceptions import OperationalError
from redis.exceptions import AuthenticationError, RedisError

from rollout.agent.control_plane.trust import Trust
from rollout.messages import Heartbeat, Reports, queue_for
from rollout.tls import in_words
from rollout.transport import register

log = logging.getLogger(__name__)
register()

#: Seconds after which an unacknowledged command is delivered again: longer than `LONGEST_OPERATION` and its undo.
VISIBILITY_TIMEOUT = 3600
RETRY_SECONDS = 0.5
BROKER_CA = "MODFLEET_BROKER_CA"


def transport_options(node: str) -> dict[str, object]:
    """Return the options for a Redis or Valkey broker. Other brokers ignore options that they do not know."""
    return {
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "restores_visible": False,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # Own keys: by default all workers share one list, and the shortest visibility timeout applies to all.
        "unacked_key": f"unacked.{queue_for(node)}",
        "unacked_index_key": f"unacked_index.{queue_for(node)}",
        "unacked_mutex_key": f"unacked_mutex.{queue_for(node)}",
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
    }


def connected(trust: Trust) -> Connection:
    """Return a new connection to the broker. A released connection cannot be opened again. Raises: `OperationalError`."""
    connection = Connection(trust.broker_url(), transport_options=transport_options(trust.settings.node))
    try:
        # By default kombu sleeps between its own attempts.
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    except OperationalError:
        connection.release()
        raise
    return connection


def broker_time(trust: Trust) -> float | None:
    """Return Unix time by the broker's clock. None if the broker is away, is not Redis or Valkey, or does not allow TIME."""
    try:
        with connected(trust) as connection:
            channel: Any = connection.default_channel
            if not hasattr(channel, "conn_or_acquire"):
                return None
            with channel.conn_or_acquire() as client:
                seconds, microseconds = client.time()
    except (OperationalError, RedisError, OSError) as error:
        log.warning("The broker's clock cannot be read: %s", in_words(error, BROKER_CA))
        return None
    return float(seconds + microseconds / 1e6)


class Publisher:
    """A connection to the broker, opened by the first message. For one thread only."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._problem = ""
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    def send(self, message: Reports | Heartbeat, *, queue: str, patience: float, expires: float | None = None) -> bool:
        """Send a message. Return True if the broker took it within about `patience` seconds. It may arrive twice.

        It goes through the anonymous exchange, which needs no binding: the broker may have lost all its keys.
        """
        end = time.monotonic() + patience
        while True:
            try:
                producer = self._ready()
                for body in self._trust.signed(message):
                    producer.publish(body, exchange="", routing_key=queue, serializer="json", expiration=expires)
            except (OperationalError, RedisError, OSError) as error:
                self.close()
                if time.monotonic() > end:
                    self._warn(queue, error)
                    return False
                time.sleep(RETRY_SECONDS)
            else:
                self._problem = ""
                return True

    def _warn(self, queue: str, error: Exception) -> None:
        """Log the problem once, until it changes: a node may wait for a person for days."""
        problem = f"{broker_problem(error)} Nothing was sent to {queue}."
        if problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem

    def close(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.release()

    def _ready(self) -> Producer:
        if self._producer is None:
            self._connection = connected(self._trust)
            self._producer = Producer(self._connection.channel())
        return self._producer


def broker_problem(error: Exception) -> str:
    """Return as a sentence why the broker cannot be used."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, AuthenticationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return f"The broker is away: {in_words(error, BROKER_CA)}."
    return "The broker refuses this node: the node waits for `modfleet nodes accept`, or its identity was revoked."
