"""Events of webhooks. They never contain the secret, and only the host of the URL: the rest may be a credential."""

from eventstore import event


def webhook_stream(uid: str) -> str:
    return f"webhook:{uid}"


@event("webhook.registered.v1")
class WebhookRegistered:
    """A webhook was registered. `types`: the event types that it receives, as names or as prefixes that end in a dot; empty
    for all types."""

    uid: str
    host: str
    types: tuple[str, ...]
    enabled: bool


@event("webhook.changed.v1")
class WebhookChanged:
    """A webhook was changed. The event has the values after the change. `changed`: the names of the changed fields."""

    uid: str
    host: str
    types: tuple[str, ...]
    enabled: bool
    changed: tuple[str, ...]


@event("webhook.test_requested.v1")
class WebhookTestRequested:
    """A person asked for a test delivery. The event is delivered to this webhook, whatever its `types` are."""

    uid: str


@event("webhook.disabled.v1")
class WebhookDisabled:
    """The webhook was disabled, because no delivery succeeded for too long. `failures`: how many attempts failed in a row.
    `last_error`: why the last one failed."""

    uid: str
    host: str
    failures: int
    last_error: str


@event("webhook.deleted.v1")
class WebhookDeleted:
    """A webhook was deleted."""

    uid: str
    host: str
