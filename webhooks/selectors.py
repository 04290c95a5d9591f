"""Answers about webhooks, and the subscription of each."""

from collections.abc import Sequence
from typing import Any

from django.db.models import Count, Min, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from api.fields import rfc3339
from eventstore import Subscription, registered_types, stored_names_of
from webhooks.errors import WebhookNotFoundError
from webhooks.events import WebhookTestRequested
from webhooks.models import Webhook


def webhooks() -> QuerySet[Webhook]:
    return Webhook.objects.all()


def webhook(uid: str) -> Webhook:
    """Return the webhook. Raises: `WebhookNotFoundError`."""
    row = Webhook.objects.filter(uid=uid).first()
    if row is None:
        raise WebhookNotFoundError(f"There is no webhook {uid}.")
    return row


def webhook_document(row: Webhook) -> dict[str, Any]:
    """Return the webhook as the API shows it: without the secret."""
    return {
        "uid": row.uid,
        "url": row.url,
        "types": row.types,
        "enabled": row.enabled,
        "disabled_reason": row.disabled_reason or None,
        "created_at": rfc3339(row.created_at),
        "position": row.position,
        "failures": row.failures,
        "last_error": row.last_error or None,
        "last_delivered_at": row.last_delivered_at and rfc3339(row.last_delivered_at),
        "next_attempt_at": row.next_attempt_at and rfc3339(row.next_attempt_at),
    }


def backlog(position: int) -> dict[str, int]:
    """Count the webhooks that are `enabled`, `failing` and `disabled`, and the positions by which the enabled ones are
    behind: all together (`behind`), and the slowest (`most_behind`). One query."""
    is_on = Q(enabled=True)
    found = Webhook.objects.aggregate(
        total=Count("uid"),
        failing=Count("uid", filter=is_on & Q(failing_since__isnull=False)),
        disabled=Count("uid", filter=Q(enabled=False)),
        reached=Coalesce(Sum("position", filter=is_on), 0),
        least=Min("position", filter=is_on),
    )
    enabled = found["total"] - found["disabled"]
    return {
        "enabled": enabled,
        "failing": found["failing"],
        "disabled": found["disabled"],
        "behind": max(0, position * enabled - found["reached"]),
        "most_behind": 0 if found["least"] is None else max(0, position - found["least"]),
    }


def classes_of(types: Sequence[str]) -> tuple[type, ...]:
    """Return the event classes that these types match. An old name matches the class as which it is read today."""
    return tuple(
        each for each in registered_types().values() if any(_means(types, name) for name in stored_names_of(each))
    )


def _means(types: Sequence[str], name: str) -> bool:
    return any(name.startswith(each) if each.endswith(".") else name == each for each in types)


def subscription_of(row: Webhook) -> Subscription:
    """Return the subscription to the events for this webhook. Its position is the checkpoint."""
    if not row.types:
        return Subscription(after=row.position)
    chosen = classes_of(row.types)
    return Subscription(
        after=row.position,
        event_classes={*chosen, WebhookTestRequested},
        accepts=lambda envelope: isinstance(envelope.event, chosen) or envelope.event.uid == row.uid,
    )
