"""What is recorded of webhooks: never the secret, and of the URL only the host, for the rest may be a credential."""

from eventstore import event


def webhook_stream(uid: str) -> str:
    return f"webhook:{uid}"


@event("webhook.registered.v1")
class WebhookRegistered:
    """`types` as they were given: names of event types, or beginnings of names that end in a dot; none for all."""

    uid: str
    host: str
    types: tuple[str, ...]
    enabled: bool


@event("webhook.changed.v1")
class WebhookChanged:
    """Values are those after the change, `changed` the names of the fields that have a new one."""

    uid: str
    host: str
    types: tuple[str, ...]
    enabled: bool
    changed: tuple[str, ...]


@event("webhook.test_requested.v1")
class WebhookTestRequested:
    """Delivered to the webhook that it is about, whatever types that one wants."""

    uid: str


@event("webhook.disabled.v1")
class WebhookDisabled:
    """Nothing was delivered for too long. `failures` attempts in a row, the last of them for `last_error`."""

    uid: str
    host: str
    failures: int
    last_error: str


@event("webhook.deleted.v1")
class WebhookDeleted:
    uid: str
    host: str
