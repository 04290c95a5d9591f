"""Webhooks in the admin site: to look at, by admins, without the secret."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.admin import ActingAdmin
from accounts.roles import Permission
from ui.cells import Link, ago, events_link, exactly
from webhooks.events import webhook_stream
from webhooks.models import Webhook


@admin.register(Webhook)
class WebhookAdmin(ActingAdmin):
    about = (
        "A webhook gets the events of the log by HTTP, signed, in order and at least once. It is tried again while it "
        "fails, ever less often, and disabled after a day. Webhooks are changed over the API: /v2/webhooks."
    )
    permission = Permission.UPDATE_CLUSTER
    list_display = ["host", "event_types", "enabled", "position", "failures", "delivered"]
    list_filter = ["enabled"]
    search_fields = ["uid", "url"]
    search_help_text = "uid or URL"
    ordering = ["-registered_position"]
    fields = ["uid", "url", "event_types", "enabled", "disabled_reason", "created", "position", "failures"]
    fields += ["last_error", "delivered_exactly", "next_attempt"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Webhook]:
        rows: QuerySet[Webhook] = super().get_queryset(request)
        return rows.defer("secret")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_act_permission(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def links(self, row: Webhook) -> list[Link]:
        return [events_link(webhook_stream(row.uid))]

    @admin.display(description="types")
    def event_types(self, row: Webhook) -> str:
        return ", ".join(row.types) or "all"

    @admin.display(description="registered")
    def created(self, row: Webhook) -> str:
        return exactly(row.created_at)

    @admin.display(description="last delivered", ordering="last_delivered_at")
    def delivered(self, row: Webhook) -> str:
        return ago(row.last_delivered_at)

    @admin.display(description="last delivered")
    def delivered_exactly(self, row: Webhook) -> str:
        return exactly(row.last_delivered_at)

    @admin.display(description="next attempt")
    def next_attempt(self, row: Webhook) -> str:
        return exactly(row.next_attempt_at)
