"""Errors of requests about webhooks."""

from api.errors import ConflictError, NotFoundError


class WebhookNotFoundError(NotFoundError):
    """There is no such webhook."""

    code = "webhook_not_found"


class WebhookDisabledError(ConflictError):
    """The webhook is disabled. To enable it: PATCH {"enabled": true}."""

    code = "webhook_disabled"
