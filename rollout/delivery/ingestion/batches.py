"""Batches of messages: messages that cannot be recorded are dropped one by one, and counted."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from django.db import InterfaceError, OperationalError

from rollout.messages import HEARTBEATS, REPORTS, Heartbeat, Report
from rollout.transport import DROPPED

logger = logging.getLogger(__name__)

Message = TypeVar("Message", Report, Heartbeat)
Result = TypeVar("Result")
_QUEUES: Mapping[type, str] = {Report: REPORTS, Heartbeat: HEARTBEATS}


def all_or_each(
    record: Callable[[Sequence[Message]], Result],
    messages: Sequence[Message],
    on_drop: Callable[[Message, Exception], None] = lambda _message, _error: None,
) -> list[Result]:
    """Record the messages together. If that fails, record each alone, so that a bad one does not block the others.

    `on_drop` is called for each message that cannot be recorded.
    Raises: the errors of a database that is away. Then no message of the batch may be acknowledged.
    """
    if not messages:
        return []
    try:
        return [record(messages)]
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        if len(messages) == 1:
            logger.exception("dropped a message that cannot be recorded: %s", messages[0])
            DROPPED.note(_QUEUES[type(messages[0])], "unrecorded", messages[0].node)
            on_drop(messages[0], error)
            return []
    return [result for message in messages for result in all_or_each(record, [message], on_drop)]
