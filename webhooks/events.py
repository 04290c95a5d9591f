"""Events of webhooks. They never have the secret, and only the host of the URL: the rest may be a credential."""

from eventstore import event


def webhook_stream(uid: str) -> str:
    return f"webhook:{uid}"


@event("webhook.registered.v1")
class WebhookRegistered:
    """`types` as given: names of event types, or prefixes that end in a dot. Empty for all."""

    uid: str
    host: str
    types: tuple[str, ...]
    enabled: bool


@event("webhook.changed.v1")
class WebhookChanged:
    """The values after the change. `changed`: the names of the fields with a new value."""

    uid: str
    host: str
    types: tuple[str, ...]
    enabled: bool
    changed: tuple[str, ...]


@event("webhook.test_requested.v1")
class WebhookTestRequested:
    """Delivered to its webhook, whatever the webhook's types are."""

    uid: str


@event("webhook.disabled.v1")
class WebhookDisabled:
    """Nothing was delivered for too long. `failures` attempts in a row have failed, the last one with `last_error`."""

    uid: str
    host: str
    failures: int
    last_error: str


@event("webhook.deleted.v1")
class WebhookDeleted:
    uid: str
    host: str
