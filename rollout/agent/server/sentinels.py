"""Sentinels that watch the server. At each failover, Sentinel calls CONFIG REWRITE on the servers of the shard."""

import re
from collections.abc import Mapping
from typing import Any

from rollout.agent.server.session import RefusedError, Session
from rollout.agent.server.texts import number

#: Each Sentinel subscribes to this channel of each server that it watches.
CHANNEL = "__sentinel__:hello"
COUNT = ("PUBSUB", "NUMSUB", CHANNEL)
#: The name of a Sentinel's connection for commands.
_CLIENT = re.compile(r"(?:^|\s)name=sentinel-\w{8}-cmd\s", re.MULTILINE)


def count_in(answer: Any) -> int | None:
    """Return how many Sentinels watch the server, by its answer to `COUNT`. None: not known."""
    if isinstance(answer, Mapping):
        return number(str(answer.get(CHANNEL)))
    return number(str(answer[1])) if answer and len(answer) > 1 else None


def count_sentinels(session: Session) -> int | None:
    """Return how many Sentinels watch the server, None if its user may not ask."""
    try:
        return count_in(session.call(*COUNT))
    except RefusedError:
        return None


def is_watched(session: Session) -> bool:
    """Return True if a Sentinel watches the server, as far as its user may see. For a user who may see its clients."""
    if count_sentinels(session):
        return True
    try:
        return bool(_CLIENT.search(str(session.call("CLIENT", "LIST"))))
    except RefusedError:
        return False
