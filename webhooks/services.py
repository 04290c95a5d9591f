"""Changes webhooks. Each change appends its audit event first, which takes the log's lock, and then writes the row."""

from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

from django.db import transaction

from eventstore import Append, RecordedEvent, append, last_version, load, retry_on_conflict
from webhooks.errors import WebhookDisabledError
from webhooks.events import (
    WebhookChanged,
    WebhookDeleted,
    WebhookDisabled,
    WebhookRegistered,
    WebhookTestRequested,
    webhook_stream,
)
from webhooks.models import Webhook
from webhooks.selectors import webhook
from webhooks.signature import new_secret

#: The actor of events that failing deliveries cause.
DELIVERER = "system:webhooks"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookChanges:
    """New values. None leaves a field unchanged."""

    url: str | None = None
    types: tuple[str, ...] | None = None
    enabled: bool | None = None
    secret: str | None = field(default=None, repr=False)


def register_webhook(*, url: str, types: tuple[str, ...], enabled: bool, secret: str | None) -> Webhook:
    """Register a webhook for all events that are appended from now on. Without `secret`, one is generated."""
    uid = uuid4().hex
    row = Webhook(uid=uid, url=url, types=list(types), enabled=enabled, secret=secret or new_secret())
    with transaction.atomic():
        event = WebhookRegistered(uid=uid, host=row.host, types=types, enabled=enabled)
        (envelope,) = append(Append(webhook_stream(uid), 0, [event]))
        row.position = row.registered_position = envelope.position
        row.created_at = envelope.recorded_at
        row.save(force_insert=True)
    return row


@retry_on_conflict
def update_webhook(uid: str, changes: WebhookChanges) -> Webhook:
    """Change a webhook, and return it. After a change, the next attempt is made at once, and failures start at zero.

    A webhook that is enabled again continues where it stopped. Raises: `WebhookNotFoundError`.
    """
    with transaction.atomic():
        version = last_version(webhook_stream(uid))
        row = webhook(uid)
        changed = _changed(row, changes)
        if not changed:
            return row
        row.url = changes.url or row.url
        row.types = row.types if changes.types is None else list(changes.types)
        row.enabled = row.enabled if changes.enabled is None else changes.enabled
        row.secret = changes.secret or row.secret
        row.failures, row.failing_since, row.next_attempt_at = 0, None, None
        row.disabled_reason = "" if row.enabled else row.disabled_reason
        event = WebhookChanged(
            uid=uid, host=row.host, types=tuple(row.types), enabled=row.enabled, changed=tuple(changed)
        )
        append(Append(webhook_stream(uid), version, [event]))
        # Not all fields: the deliverer writes the position.
        row.save(update_fields=[*changed, "failures", "failing_since", "next_attempt_at", "disabled_reason"])
        return row


@retry_on_conflict
def delete_webhook(uid: str) -> None:
    """Delete a webhook. Raises: `WebhookNotFoundError`."""
    with transaction.atomic():
        version = last_version(webhook_stream(uid))
        row = webhook(uid)
        append(Append(webhook_stream(uid), version, [WebhookDeleted(uid=uid, host=row.host)]))
        row.delete()


@retry_on_conflict
def request_test(uid: str) -> RecordedEvent:
    """Append a test event, which is delivered after all events before it. The next attempt is made at once.

    Raises: `WebhookNotFoundError`, `WebhookDisabledError`.
    """
    with transaction.atomic():
        version = last_version(webhook_stream(uid))
        if not webhook(uid).enabled:
            raise WebhookDisabledError
        (envelope,) = append(Append(webhook_stream(uid), version, [WebhookTestRequested(uid=uid)]))
        Webhook.objects.filter(uid=uid).update(next_attempt_at=None)
        return envelope


@retry_on_conflict
def disable_failing_webhook(uid: str, *, lease: UUID, last_error: str, reason: str) -> None:
    """Disable a webhook. Does nothing if the lease has ended, or the webhook was changed in between.

    The cause of the event is the webhook's newest event.
    """
    with transaction.atomic():
        *_, newest = load(webhook_stream(uid))
        row = Webhook.objects.filter(uid=uid, lease=lease, enabled=True).exclude(failing_since=None).first()
        if row is None:
            return
        failures = row.failures + 1
        event = WebhookDisabled(uid=uid, host=row.host, failures=failures, last_error=last_error)
        because = replace(newest.metadata, actor=DELIVERER).because_of(newest.event_id)
        append(Append(webhook_stream(uid), newest.version, [event], because))
        Webhook.objects.filter(uid=uid).update(
            enabled=False,
            disabled_reason=reason,
            failures=failures,
            last_error=last_error,
            next_attempt_at=None,
            lease=None,
            leased_until=None,
        )


def _changed(row: Webhook, changes: WebhookChanges) -> list[str]:
    values = {
        "url": (changes.url, row.url),
        "types": (changes.types, tuple(row.types)),
        "enabled": (changes.enabled, row.enabled),
        "secret": (changes.secret, row.secret),
    }
    return [name for name, (new, old) in values.items() if new is not None and new != old]
