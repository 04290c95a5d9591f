"""The users of the nodes at the broker. The relay creates them, because only the relay may administer the broker.

A broker that was restarted, or has lost its users, gets them again. A user of a node that was revoked is deleted, and its
connections are closed.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from django.db.models import Max

from rollout.delivery.broker_acl import keys_of, node_rules, user_of
from rollout.domain.node.state import Identity
from rollout.models import Node
from rollout.tls import secured

logger = logging.getLogger(__name__)

#: Commands that are sent to the broker at a time.
BATCH = 500
#: How often the broker is asked for its users, seconds.
CHECK_SECONDS = 2.0
#: The longest wait for the broker, seconds.
ANSWER_SECONDS = 5.0
PREFIX = user_of("")
#: The rules of Redis 6.2 cannot give a user different rights on different keys. Valkey 7.2 names itself Redis 7.2.
OLDEST_MAJOR = 7


class UnsupportedBrokerError(Exception):
    """The broker is too old to give each node its own rights."""

    def __init__(self, version: str) -> None:
        super().__init__(
            f"The broker is Redis {version}; needed is Redis {OLDEST_MAJOR}.0 or Valkey 7.2, or newer. "
            "The users of nodes are not created."
        )


class BrokerUsers:
    """Call `poll` now and then. It does nothing without `MODFLEET_BROKER_ADMIN_URL`."""

    def __init__(self, url: str | None = None) -> None:
        url = settings.ENVIRONMENT.broker_admin_url if url is None else url
        self._broker: Any = connected_to(url, settings.ENVIRONMENT.broker_ca) if url else None
        #: The process of the broker, and the rules of each user that were set in it.
        self._run_id = ""
        self._set: dict[str, tuple[str, ...]] = {}
        self._position = -1
        self._next_check = 0.0

    def poll(self) -> int:
        """Set the users that are missing or have other rights, and delete the others of nodes. Return how many were changed.

        The broker is asked at once if the identity of a node has changed, and every `CHECK_SECONDS` in any case.
        Raises: `redis.RedisError`.
        """
        if self._broker is None:
            return 0
        position = newest_identity_position()
        if position == self._position and time.monotonic() < self._next_check:
            return 0
        changed = self._check()
        self._position, self._next_check = position, time.monotonic() + CHECK_SECONDS
        return changed

    def _check(self) -> int:
        present = self._present()
        needed = needed_users()
        missing = [user for user in needed if user not in present or self._set.get(user) != needed[user]]
        surplus = [user for user in present if user not in needed]
        for some in _slices(missing):
            self._send(words for user in some for words in self._setting(user, needed[user]))
            self._set.update((user, needed[user]) for user in some)
        for some in _slices(surplus):
            # Its connections are closed.
            self._send(["ACL", "DELUSER", user] for user in some)
            self._delete_keys([user.removeprefix(PREFIX) for user in some])
            logger.info("The broker's users %s were deleted", ", ".join(some))
        return len(missing) + len(surplus)

    def _setting(self, user: str, rules: tuple[str, ...]) -> Iterator[Sequence[str]]:
        """Yield the commands that set a user. If a password ends, the connections of this user end too: one that was opened
        with that password would stay."""
        passwords = {each for each in self._set.get(user, ()) if each.startswith("#")}
        if passwords - set(rules):
            yield "ACL", "DELUSER", user
        yield "ACL", "SETUSER", user, "reset", *rules

    def _delete_keys(self, nodes: Sequence[str]) -> None:
        """Delete all that the nodes' users could store for themselves: it may fill the broker."""
        keys = {node: keys_of(node) for node in nodes}
        self._send(["DEL", *of_node[:2]] for of_node in keys.values())
        try:
            self._send(["DEL", *of_node[2:]] for of_node in keys.values())
        except redis.exceptions.NoPermissionError as error:
            logger.warning("The broker keeps keys of revoked nodes. Run `broker_acl --administrator` again: %s", error)

    def _present(self) -> set[str]:
        """Return the users of nodes that the broker has. After its restart, no rules are known to be set."""
        server = self._broker.info("server")
        version = str(server["redis_version"])
        if int(version.partition(".")[0]) < OLDEST_MAJOR:
            raise UnsupportedBrokerError(version)
        run_id = str(server["run_id"])
        if run_id != self._run_id:
            self._run_id, self._set = run_id, {}
        return {user for user in self._broker.acl_users() if user.startswith(PREFIX)}

    def _send(self, commands: Iterable[Sequence[str]]) -> None:
        with self._broker.pipeline(transaction=False) as pipeline:
            for words in commands:
                pipeline.execute_command(*words)
            pipeline.execute()


def connected_to(url: str, ca: str = "") -> Any:
    """Return a client of the broker. `url` is in Celery's form. `ca`: the file of a private certificate authority."""
    plain = secured(url.replace("redis+socket://", "unix://", 1), ca=Path(ca) if ca else None)
    # CLIENT SETINFO exists since Redis 7.2, so its user may not call it.
    options: dict[str, Any] = {"socket_timeout": ANSWER_SECONDS, "decode_responses": True, "driver_info": None}
    return redis.Redis.from_url(plain, **options)


def needed_users() -> dict[str, tuple[str, ...]]:
    """Return the rules of the users that the broker must have, by user."""
    signed = Node.objects.filter(identity=Identity.SIGNED).values_list("name", "keys")
    return {user_of(name): node_rules(name, [each[1] for each in keys]) for name, keys in signed}


def newest_identity_position() -> int:
    """Return the position of the newest event about the identity of a node; 0 if there is none."""
    return Node.objects.aggregate(newest=Max("identity_position"))["newest"] or 0


def _slices(users: Sequence[str]) -> Iterator[Sequence[str]]:
    return (users[start : start + BATCH] for start in range(0, len(users), BATCH))
