"""What is recorded of webhooks: never the secret, and of the URL only the host, for the rest may be a credential."""

from dataclasses import dataclass

from eventstore.registry import event_type


def webhook_stream(uid: str) -> str:
    return f"webhook:{uid}"


@event_type("webhook.registered.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRegistered:
    """`types` as they were given: names of event types, or beginnings of names that end in a dot; none for all."""

    uid: str
    host: str
    types: tuple[str, ...]
    enabled: bool


@event_type("webhook.changed.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookChanged:
    """Values are those after the change, `changed` the names of the fields that have a new one."""

    uid: str
    host: str
    types: tuple[str, ...]
    enabled: bool
    changed: tuple[str, ...]


@event_type("webhook.test_requested.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTestRequested:
    """Delivered to the webhook that it is about, whatever types that one wants."""

    uid: str


@event_type("webhook.disabled.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDisabled:
    """Nothing was delivered for too long. `failures` attempts in a row, the last of them for `last_error`."""

    uid: str
    host: str
    failures: int
    last_error: str


@event_type("webhook.deleted.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDeleted:
    uid: str
    host: str
