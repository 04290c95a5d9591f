"""The relay: publishes the commands of released operations to the queues of their nodes, at least once.

What was released is the outbox. A command is claimed by a conditional update with a lease, so that any number of relays
may run; it is published again, ever less often, until the operation ends: but only to a node that has been heard of
since, for what the last publish put into its queue is still there otherwise.
"""

import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery import current_app
from django.conf import settings
from django.db.models import F, OuterRef, Q, Subquery
from kombu import Producer, Queue

from artifacts_app.selectors import BuildToFetch, build_to_fetch
from eventstore.store import database_now
from rollout.messages import (
    EXECUTE,
    Action,
    Activation,
    Command,
    Package,
    Phase,
    queue_for,
    to_json,
)
from rollout.models import Dispatch, Liveness, Node, Operation, Rollout
from rollout.selectors import IN_HAND

logger = logging.getLogger(__name__)

#: How long a relay may hold what it has claimed before another one may take it, seconds.
LEASE_SECONDS = 30
#: The longest wait before a command is published again, seconds.
LONGEST_RESEND_SECONDS = 300
BATCH = 500


def publish_due() -> int:
    """Publish all commands that are due. Returns how many were."""
    published = 0
    while claim := _claim():
        published += _publish(claim)
    return published


@dataclass(frozen=True, slots=True)
class _Claim:
    lease: uuid.UUID
    now: datetime


def _claim() -> _Claim | None:
    now = database_now()
    due = list(_due(now).values_list("key", flat=True)[:BATCH])
    if not due:
        return None
    Dispatch.objects.bulk_create((Dispatch(operation=key) for key in due), ignore_conflicts=True)
    lease = uuid.uuid4()
    free = Q(leased_until=None) | Q(leased_until__lt=now)
    claimed = Dispatch.objects.filter(free, operation__in=due).update(
        lease=lease, leased_until=now + timedelta(seconds=LEASE_SECONDS)
    )
    return _Claim(lease, now) if claimed else None


def _due(now: datetime) -> Any:
    """Operations in hand, of nodes that are there, whose command has to be published (again)."""
    dispatch = Dispatch.objects.filter(operation=OuterRef("key"))
    liveness = Liveness.objects.filter(node=OuterRef("node"))
    operations = Operation.objects.annotate(
        published_at=Subquery(dispatch.values("published_at")),
        due_at=Subquery(dispatch.values("due_at")),
        leased_until=Subquery(dispatch.values("leased_until")),
        last_seen=Subquery(liveness.values("last_seen")),
        hello_at=Subquery(liveness.values("hello_at")),
    )
    never = Q(published_at=None)
    released_since = Q(released_at__gt=F("published_at"))
    restarted_since = Q(hello_at__gt=F("published_at"))
    unanswered = Q(due_at__lt=now, last_seen__gt=F("published_at"))
    return operations.filter(
        never | released_since | restarted_since | unanswered,
        Q(leased_until=None) | Q(leased_until__lt=now),
        phase__in=IN_HAND,
        node__in=Node.objects.filter(online=True).values("name"),
    ).order_by("released_at")


def _publish(claim: _Claim) -> int:
    """Publish what this lease holds and is still due, then note when."""
    held = dict(Dispatch.objects.filter(lease=claim.lease).values_list("operation", "publishes"))
    operations = list(Operation.objects.filter(key__in=held, phase__in=IN_HAND))
    try:
        with current_app.producer_or_acquire() as producer:
            for command in _commands(operations):
                _send(command, producer)
    finally:
        for publishes in set(held.values()):
            wait = min(settings.ENVIRONMENT.resend_seconds * 2**publishes, LONGEST_RESEND_SECONDS)
            Dispatch.objects.filter(lease=claim.lease, publishes=publishes).update(
                published_at=claim.now,
                due_at=claim.now + timedelta(seconds=wait),
                publishes=publishes + 1,
                lease=None,
                leased_until=None,
            )
    return len(operations)


def _send(command: Command, producer: Producer) -> None:
    """To the node's queue through the anonymous exchange: nothing is declared for it, its agent does that."""
    current_app.send_task(
        EXECUTE,
        kwargs={"command": to_json(command)},
        queue=Queue(queue_for(command.node)),  # type: ignore[arg-type]  # takes one; its types do not say so
        ignore_result=True,
        producer=producer,
    )


def _commands(operations: Iterable[Operation]) -> Iterable[Command]:
    listed = list(operations)
    platforms = dict(Node.objects.filter(name__in=[each.node for each in listed]).values_list("name", "platform"))
    deadlines = _deadlines(each.rollout for each in listed)
    found: dict[tuple[str, int, str], BuildToFetch | None] = {}
    for each in listed:
        wanted = (each.module_name, each.version, platforms[each.node])
        if each.action == Action.INSTALL and wanted not in found:
            found[wanted] = build_to_fetch(*wanted)
        build = found.get(wanted)
        if each.action == Action.INSTALL and build is None:
            logger.error("no build of %s %s for %s any more", *wanted)
            continue
        yield _command(each, build, deadlines[each.rollout])


def _deadlines(rollouts: Iterable[str]) -> dict[str, float]:
    strategies = Rollout.objects.filter(uid__in=set(rollouts)).values_list("uid", "strategy")
    return {uid: strategy["node_deadline_seconds"] for uid, strategy in strategies}


def _command(operation: Operation, build: BuildToFetch | None, deadline_seconds: float) -> Command:
    return Command(
        rollout=operation.rollout,
        node=operation.node,
        module_name=operation.module_name,
        version=operation.version,
        action=Action(operation.action),
        activation=Activation(operation.activation),
        generation=operation.generation,
        attempt=operation.attempt,
        expires=_expires(),
        deadline_seconds=deadline_seconds,
        package=None if build is None else _package(build, operation.node),
        command_line_args="" if build is None else build.command_line_args,
        commands=() if build is None else build.commands,
    )


def _expires() -> float:
    """Half the life of a download link, so that one is never dead before its command is."""
    return database_now().timestamp() + settings.ENVIRONMENT.download_seconds / 2


def _package(build: BuildToFetch, node: str) -> Package:
    return Package(
        url=build.url(node),
        size=build.size,
        package_sha256=build.package_sha256,
        content_sha256=build.content_sha256,
        module_file=build.module_file,
        members=build.members,
    )


def purge_queue(node: str) -> None:
    """Take back what was published to a node that has not started it."""
    with current_app.connection_for_write() as connection:
        Queue(queue_for(node), channel=connection.default_channel).purge()


def forget_ended() -> None:
    """Drop the outbox rows of operations that have ended."""
    in_hand = Operation.objects.filter(phase__in=[Phase.SCHEDULED, *IN_HAND]).values("key")
    Dispatch.objects.exclude(operation__in=in_hand).delete()
