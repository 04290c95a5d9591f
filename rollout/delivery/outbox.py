"""The relay: publishes the commands of released operations to the queues of their nodes, at least once.

What was released is the outbox. A command is claimed by a conditional update with a lease, so that any number of relays
may run: one that dies leaves its claims to the others after `LEASE_SECONDS`. A command is published again, ever less
often, until the operation ends: but only to a node that has been heard of since, for what the last publish put into
its queue is still there otherwise. What could not be published is still due.
"""

import logging
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import Error, transaction
from django.db.models import Count, Exists, F, Min, OuterRef, Q, Subquery
from kombu import Producer, Queue

from artifacts_app.selectors import BuildToFetch, build_to_fetch
from eventstore import database_now, delete_unlocked
from rollout.domain.placement.commands import Skip
from rollout.domain.strategy import Strategy
from rollout.messages import EXECUTE, Action, Activation, Command, Package, Phase, cancel_queue_for, queue_for, to_json
from rollout.models import Dispatch, Liveness, Node, Operation, Rollout
from rollout.planning.load_order import LoadOrders
from rollout.process import timeouts
from rollout.queries.operations import IN_PROGRESS

logger = logging.getLogger(__name__)

#: How long a relay may hold what it has claimed before another one may take it, seconds.
LEASE_SECONDS = 30
#: The longest wait before a command is published again, seconds.
LONGEST_RESEND_SECONDS = 300
BATCH = 500


#: Claims whose outcome the database could not be given when it was lost, each with what had been sent: noted first when
#: it is back, or they would hold their commands until their lease ends.
_unnoted: deque[tuple["_Claim", Sequence[Any]]] = deque()


def publish_due() -> int:
    """Publish all commands that are due. Returns how many were. Raises what the broker's client raises."""
    note_what_was_lost()
    published = 0
    while (claim := _claim()) and (count := _publish(claim)):
        published += count
    return published


def note_what_was_lost() -> None:
    """Give back what this process claimed and could not note. Costs nothing when there is nothing."""
    while _unnoted:
        try:
            claim, sent = _unnoted.popleft()
        except IndexError:  # another thread was first
            return
        _note_or_keep(claim, sent)


@dataclass(frozen=True, slots=True)
class _Claim:
    lease: uuid.UUID
    now: datetime


def _claim() -> _Claim | None:
    """None when nothing is due that is not another relay's already."""
    now = database_now()
    free = Q(leased_until=None) | _is_over("leased_until", now, longest=LEASE_SECONDS)
    due = list(_due(now).filter(free).values_list("key", flat=True)[:BATCH])
    if not due:
        return None
    Dispatch.objects.bulk_create((Dispatch(operation=key) for key in sorted(due)), ignore_conflicts=True)
    claim = _Claim(uuid.uuid4(), now)
    try:
        with transaction.atomic():
            # What another relay is claiming in this moment is not waited for.
            rows = Dispatch.objects.select_for_update(skip_locked=True).filter(free, operation__in=due)
            claimed = Dispatch.objects.filter(operation__in=list(rows.values_list("operation", flat=True))).update(
                lease=claim.lease, leased_until=now + timedelta(seconds=LEASE_SECONDS)
            )
    except Error:  # it may have been committed all the same
        _unnoted.append((claim, ()))
        raise
    return claim if claimed else None


def _due(now: datetime) -> Any:
    """Operations in hand, of nodes that are there, whose command has to be published (again)."""
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
    )
    never = Q(published_at=None)
    released_since = Q(released_at__gt=F("published_at"))
    restarted_since = Q(hello_at__gt=F("published_at"))
    canceled_since = Q(cancel_requested_at__gt=F("published_at"))
    # Published in the future: the clock was set back, and nobody knows what was heard since.
    heard_since = Q(last_seen__gt=F("published_at")) | Q(published_at__gt=now)
    unanswered = _is_over("due_at", now, longest=LONGEST_RESEND_SECONDS) & heard_since
    return operations.filter(
        never | released_since | restarted_since | canceled_since | unanswered,
        # Not `node__in`: a planner would rather start from the nodes, and read all that was ever done on them.
        Exists(Node.objects.filter(name=OuterRef("node"), online=True)),
        phase__in=IN_PROGRESS,
        deadline_at__isnull=False,  # as every one in hand: for the index
    ).order_by("released_at")


def _is_over(moment: str, now: datetime, *, longest: float) -> Q:
    """Whether a wait of `longest` seconds at most is over. One that seems to last twice as long began before the clock
    was set back; one that seems to last a little longer began after `now`."""
    return Q(**{f"{moment}__lt": now}) | Q(**{f"{moment}__gt": now + timedelta(seconds=2 * longest)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """`due`: commands that are to be published now, the first time or again. `oldest_released_at`: when the oldest of
    those was released that never were; None if there is none."""

    due: int
    oldest_released_at: datetime | None


def outbox(now: datetime) -> Outbox:
    """One query, over what is in hand."""
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
    """Publish what this lease holds and is still due: another relay may have been first, between look and claim."""
    sent: list[Any] = []
    try:
        operations = list(_due(claim.now).filter(lease=claim.lease))
        with current_app.producer_or_acquire() as producer:
            for operation, command in _commands(operations):
                (_send_cancel if operation.phase == Phase.CANCELING else _send)(command, producer)
                sent.append(operation)
    finally:
        _note_or_keep(claim, sent)
    return len(sent)


def _note_or_keep(claim: _Claim, sent: Sequence[Any]) -> None:
    """Raises: `django.db.Error`; it is noted by the next `publish_due` then."""
    try:
        _note(claim, sent)
    except Error:
        _unnoted.append((claim, sent))
        raise


def _note(claim: _Claim, sent: Sequence[Any]) -> None:
    """What was sent is due again after a while; the rest of the claim is free, and as due as before."""
    by_count: dict[int, list[Any]] = {}
    for operation in sent:
        by_count.setdefault(_publishes(operation), []).append(operation)
    held = Dispatch.objects.filter(lease=claim.lease)
    for publishes, operations in by_count.items():
        wait = min(settings.ENVIRONMENT.resend_seconds * 2**publishes, LONGEST_RESEND_SECONDS)
        # Never before what made it due: a database whose clock was set back would have it due again and again.
        causes = [
            moment
            for each in operations
            for moment in (each.released_at, each.hello_at, each.cancel_requested_at)
            if moment is not None
        ]
        published_at = max(claim.now, *causes)
        held.filter(operation__in=[each.key for each in operations]).update(
            published_at=published_at,
            due_at=claim.now + timedelta(seconds=wait),
            publishes=publishes + 1,
            lease=None,
            leased_until=None,
        )
    held.update(lease=None, leased_until=None)


def _publishes(operation: Any) -> int:
    """How often this release was published to this run of the agent: the wait starts anew with each."""
    last = operation.published_at
    causes = (operation.released_at, operation.hello_at, operation.cancel_requested_at)
    is_new = last is None or any(each is not None and each > last for each in causes)
    return 0 if is_new else int(operation.publishes)


def _send(command: Command, producer: Producer) -> None:
    """To the node's queue through the anonymous exchange: nothing is declared for it, its agent does that."""
    current_app.send_task(
        EXECUTE,
        kwargs={"command": to_json(command)},
        queue=Queue(queue_for(command.node)),  # type: ignore[arg-type]  # takes one; its types do not say so
        ignore_result=True,
        producer=producer,
    )


def _send_cancel(command: Command, producer: Producer) -> None:
    """Beside the node's queue: its agent hears it while it works."""
    producer.publish(to_json(command), exchange="", routing_key=cancel_queue_for(command.node), serializer="json")


def _commands(operations: Sequence[Operation]) -> Iterator[tuple[Operation, Command]]:
    """The command of each operation. One whose build is gone, or does not fit its node any more, is ended instead."""
    nodes = Node.objects.in_bulk([each.node for each in operations])
    platforms = {name: node.fitting_platforms for name, node in nodes.items()}
    strategies = _strategies(each.rollout for each in operations)
    load_orders = LoadOrders(operations, platforms)
    sent_at = database_now().timestamp()
    found: dict[tuple[str, int, str, tuple[str, ...]], BuildToFetch | None] = {}
    lacking: list[tuple[Operation, Skip]] = []
    for each in operations:
        build = None
        if each.action == Action.INSTALL:
            wanted = (each.module_name, each.version, each.content_sha256, platforms[each.node])
            if wanted not in found:
                found[wanted] = build_to_fetch(*wanted)
            build = found[wanted]
            if build is None:
                module = load_orders.module(each)
                lacking.append((each, module.lack_of_planned_build(nodes[each.node], each.content_sha256)))
                continue
        yield each, _command(each, build, strategies[each.rollout], sent_at, load_orders)
    timeouts.end_for_lack_of_a_build(lacking)


def _strategies(rollouts: Iterable[str]) -> dict[str, dict[str, Any]]:
    return dict(Rollout.objects.filter(uid__in=set(rollouts)).values_list("uid", "strategy"))


def _command(
    operation: Operation,
    build: BuildToFetch | None,
    strategy: Mapping[str, Any],
    sent_at: float,
    load_orders: LoadOrders,
) -> Command:
    return Command(
        rollout=operation.rollout,
        node=operation.node,
        module_name=operation.module_name,
        version=operation.version,
        action=Action(operation.action),
        activation=Activation(operation.activation),
        generation=operation.generation,
        attempt=operation.attempt,
        # Half the life of a download link, so that one is never dead before its command is.
        expires=sent_at + settings.ENVIRONMENT.download_seconds / 2,
        sent_at=sent_at,
        deadline_seconds=strategy["node_deadline_seconds"],
        # A rollout that an older release has started has none.
        settle_seconds=strategy.get("settle_seconds", Strategy().settle_seconds),
        load_order=load_orders.of(operation.node),
        has_types=load_orders.module(operation).has_types,
        package=None if build is None else _package(build, operation.node),
        command_line_args="" if build is None else build.command_line_args,
        commands=() if build is None else build.commands,
        undoes=operation.undoes,
        correlation_id=operation.correlation_id,
    )


def _package(build: BuildToFetch, node: str) -> Package:
    return Package(
        url=build.url(node),
        size=build.size,
        package_sha256=build.package_sha256,
        content_sha256=build.content_sha256,
        module_file=build.module_file,
        members=build.members,
    )


def purge_queues(nodes: Iterable[str]) -> None:
    """Take back what was published to nodes that have not started it. One broker connection, however many there are."""
    with current_app.connection_or_acquire() as connection:
        for node in nodes:
            Queue(queue_for(node), channel=connection.default_channel).purge()


def forget_ended() -> None:
    """Drop the outbox rows of operations that have ended."""
    unfinished = Operation.objects.filter(finished_at__isnull=True).values("key")
    delete_unlocked(Dispatch.objects.exclude(operation__in=unfinished))
