"""The outbox relay: publishes the commands of released operations to the queues of their nodes, at least once.

Released operations are the outbox. Commands are claimed by a lease (`leases`), so any number of relays may run. A command
is published again, less and less often, until its operation ends. But only if the node was heard from since: otherwise
the last command is still in the node's queue. A command that could not be published is still due.
"""

import logging
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from celery import current_app
from django.conf import settings
from django.db import Error, transaction
from django.db.models import Count, Exists, F, Min, OuterRef, Q, Subquery
from kombu import Producer, Queue

from eventstore import database_now, delete_unlocked
from rollout.delivery.commands import commands_of
from rollout.delivery.leases import RELEASED, backoff, has_passed, leased, may_be_claimed
from rollout.domain.node.state import Identity
from rollout.messages import EXECUTE, Command, Phase, cancel_queue_for, queue_for, to_json
from rollout.models import Dispatch, Liveness, Node, Operation
from rollout.queries.operations import IN_PROGRESS
from rollout.queries.trust import control_secrets
from rollout.signing import Purpose

logger = logging.getLogger(__name__)

#: The longest wait before a command is published again, seconds.
LONGEST_RESEND_SECONDS = 300
#: How many commands are claimed at a time.
BATCH = 500


#: Claims with an outcome that could not be recorded because the database was away, each with the operations whose
#: commands were sent. They are recorded first when the database is back: until then no other process can claim the commands.
_unrecorded: deque[tuple["_Claim", Sequence[Any]]] = deque()


def publish_due() -> int:
    """Publish all commands that are due. Return their number. Raises: the errors of the broker's client."""
    record_lost_outcomes()
    published = 0
    while (claim := _claim()) and (count := _publish(claim)):
        published += count
    return published


def record_lost_outcomes() -> None:
    """Record the outcomes that this process could not record before, and release their claims. Asks no database if there
    are none."""
    while _unrecorded:
        try:
            claim, sent = _unrecorded.popleft()
        except IndexError:  # another thread was first
            return
        _record_or_keep(claim, sent)


@dataclass(frozen=True, slots=True)
class _Claim:
    lease: uuid.UUID
    now: datetime


def _claim() -> _Claim | None:
    """Claim a batch of commands that are due. Return None if there are none, or other relays have claimed all."""
    now = database_now()
    free = may_be_claimed(now)
    due = list(_due(now).filter(free).values_list("key", flat=True)[:BATCH])
    if not due:
        return None
    Dispatch.objects.bulk_create((Dispatch(operation=key) for key in sorted(due)), ignore_conflicts=True)
    claim = _Claim(uuid.uuid4(), now)
    try:
        with transaction.atomic():
            # Rows that another relay is claiming are skipped.
            rows = Dispatch.objects.select_for_update(skip_locked=True).filter(free, operation__in=due)
            claimed = Dispatch.objects.filter(operation__in=list(rows.values_list("operation", flat=True))).update(
                **leased(claim.lease, now)
            )
    except Error:  # the claim may be committed
        _unrecorded.append((claim, ()))
        raise
    return claim if claimed else None


def _due(now: datetime) -> Any:
    """Return the operations in progress whose command is due, for the first time or again, on nodes that are online."""
    dispatch = Dispatch.objects.filter(operation=OuterRef("key"))
    liveness = Liveness.objects.filter(node=OuterRef("node"))
    operations = Operation.objects.annotate(
        publishes=Subquery(dispatch.values("publishes")),
        published_at=Subquery(dispatch.values("published_at")),
        due_at=Subquery(dispatch.values("due_at")),
        lease=Subquery(dispatch.values("lease")),
        leased_until=Subquery(dispatch.values("leased_until")),
        last_seen=Subquery(liveness.values("last_seen")),
        hello_at=Subquery(liveness.values("hello_at")),
        incarnation=Subquery(liveness.values("incarnation")),
        identity=Subquery(Node.objects.filter(name=OuterRef("node")).values("identity")),
    )
    never = Q(published_at=None)
    released_since = Q(released_at__gt=F("published_at"))
    restarted_since = Q(hello_at__gt=F("published_at"))
    canceled_since = Q(cancel_requested_at__gt=F("published_at"))
    # Published in the future: the clock was set back, so it is not known what was heard since.
    heard_since = Q(last_seen__gt=F("published_at")) | Q(published_at__gt=now)
    unanswered = has_passed("due_at", now, longest=LONGEST_RESEND_SECONDS) & heard_since
    return operations.filter(
        never | released_since | restarted_since | canceled_since | unanswered,
        # Not `node__in`: the database would start from the nodes, and read all operations they ever had.
        Exists(Node.objects.filter(name=OuterRef("node"), online=True)),
        phase__in=IN_PROGRESS,
        deadline_at__isnull=False,  # true for every operation in progress; the index has this condition
    ).order_by("released_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """`due` is the number of commands to publish now. `oldest_released_at` is when the oldest command that was never
    published was released; None if there is none."""

    due: int
    oldest_released_at: datetime | None


def outbox(now: datetime) -> Outbox:
    """Return the state of the outbox. One query, over operations in progress."""
    found = (
        _due(now)
        .order_by()
        .aggregate(
            due=Count("key"),
            oldest=Min("released_at", filter=Q(published_at=None) | Q(released_at__gt=F("published_at"))),
        )
    )
    return Outbox(due=found["due"], oldest_released_at=found["oldest"])


def _publish(claim: _Claim) -> int:
    """Publish the claimed commands. Return their number. Commands that another relay published first are left out."""
    sent: list[Any] = []
    try:
        operations = list(_due(claim.now).filter(lease=claim.lease))
        with current_app.producer_or_acquire() as producer:
            for operation, command in commands_of(operations):
                is_signed = operation.identity == Identity.SIGNED
                send = _send_cancel if operation.phase == Phase.CANCELING else _send
                send(command, producer, is_signed=is_signed)
                sent.append(operation)
    finally:
        _record_or_keep(claim, sent)
    return len(sent)


def _record_or_keep(claim: _Claim, sent: Sequence[Any]) -> None:
    """Record the outcome of the claim. Raises: `django.db.Error`. Then the next `publish_due` records it."""
    try:
        _record(claim, sent)
    except Error:
        _unrecorded.append((claim, sent))
        raise


def _record(claim: _Claim, sent: Sequence[Any]) -> None:
    """Set when the commands in `sent` are due again. Release the rest of the claim, which is as due as before."""
    by_count: dict[int, list[Any]] = {}
    for operation in sent:
        by_count.setdefault(_publishes(operation), []).append(operation)
    claimed = Dispatch.objects.filter(lease=claim.lease)
    for publishes, operations in by_count.items():
        wait = backoff(publishes, first=settings.ENVIRONMENT.resend_seconds, longest=LONGEST_RESEND_SECONDS)
        # Never before the cause: after the database's clock was set back, the command would be due again and again.
        causes = [
            moment
            for each in operations
            for moment in (each.released_at, each.hello_at, each.cancel_requested_at)
            if moment is not None
        ]
        published_at = max(claim.now, *causes)
        claimed.filter(operation__in=[each.key for each in operations]).update(
            published_at=published_at,
            due_at=claim.now + timedelta(seconds=wait),
            publishes=publishes + 1,
            **RELEASED,
        )
    claimed.update(**RELEASED)


def _publishes(operation: Any) -> int:
    """Return how often this release was published since the agent's last start. A new release or start begins at 0."""
    last = operation.published_at
    causes = (operation.released_at, operation.hello_at, operation.cancel_requested_at)
    is_new = last is None or any(each is not None and each > last for each in causes)
    return 0 if is_new else int(operation.publishes)


def _send(command: Command, producer: Producer, *, is_signed: bool) -> None:
    """Publish to the node's queue, through the anonymous exchange: the agent declares the queue."""
    signed = {"signed": _signed(Purpose.EXECUTE, command.node, to_json(command))} if is_signed else {}
    current_app.send_task(
        EXECUTE,
        kwargs=signed or {"command": to_json(command)},
        queue=Queue(queue_for(command.node)),  # type: ignore[arg-type]  # takes one; its types do not say so
        ignore_result=True,
        producer=producer,
    )


def _send_cancel(command: Command, producer: Producer, *, is_signed: bool) -> None:
    """Publish to the node's cancel queue, which its agent reads also during an operation."""
    body = to_json(command)
    if is_signed:
        body = _signed(Purpose.CANCEL, command.node, body)
    producer.publish(body, exchange="", routing_key=cancel_queue_for(command.node), serializer="json")


def _signed(purpose: Purpose, node: str, message: Any) -> dict[str, Any]:
    """Return the envelope as JSON."""
    envelope: dict[str, Any] = msgspec.to_builtins(control_secrets()[0].sign(purpose, node, message))
    return envelope


def purge_queues(nodes: Iterable[str]) -> None:
    """Delete the commands that wait in the queues of these nodes. One broker connection, whatever the number of nodes."""
    with current_app.connection_or_acquire() as connection:
        for node in nodes:
            Queue(queue_for(node), channel=connection.default_channel).purge()


def forget_finished() -> None:
    """Delete the outbox rows of finished operations."""
    unfinished = Operation.objects.filter(finished_at__isnull=True).values("key")
    delete_unlocked(Dispatch.objects.exclude(operation__in=unfinished))
