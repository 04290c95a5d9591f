"""Errors of requests about webhooks."""

from api.errors import ConflictError, NotFoundError


class WebhookNotFoundError(NotFoundError):
    """There is no such webhook."""

    code = "webhook_not_found"


class WebhookDisabledError(ConflictError):
    """The webhook is disabled: PATCH {"enabled": true} enables it."""

    code = "webhook_disabled"
