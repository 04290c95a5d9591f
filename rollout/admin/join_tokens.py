"""Join tokens, for users who may add nodes. The secret is never shown."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet, Value
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

from accounts.admin import ActingAdmin
from accounts.roles import Permission
from eventstore import database_now
from rollout.domain.join_token.events import join_token_stream
from rollout.models import JoinToken
from rollout.queries.join_tokens import state_of
from rollout.services.enrolment import revoke_join_token
from ui.cells import Link, ago, badge, events_link, exactly, link, page_url


@admin.register(JoinToken)
class JoinTokenAdmin(ActingAdmin):
    about = (
        "A host joins the fleet with a join token. A token for one node can be used once; a token for a group has a pattern "
        "of names and a limit of uses. Revoking a token does not change the nodes that have used it."
    )
    permission = Permission.UPDATE_NODE
    actions = ["revoke"]
    list_display = ["for_nodes", "state_badge", "uses_so_far", "expires_in", "accepts", "observes", "by", "created"]
    list_display_links = None
    search_fields = ["id", "node", "pattern"]
    search_help_text = "Id, node or pattern"
    ordering = ["-created_position"]
    fields = ["id", "for_nodes", "state_badge", "uses_so_far", "expires", "accepts", "observes", "by", "created"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[JoinToken]:
        rows: QuerySet[JoinToken] = super().get_queryset(request)
        return rows.annotate(now=Value(database_now()))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_act_permission(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def list_links(self, request: HttpRequest) -> list[Link]:
        return [Link(url=reverse("admin:add_node"), text="Add a node")]

    def links(self, row: JoinToken) -> list[Link]:
        return [events_link(join_token_stream(row.id))]

    @admin.action(description="Revoke", permissions=["act"])
    def revoke(self, request: HttpRequest, rows: QuerySet[JoinToken]) -> HttpResponseBase | None:
        return self.act(request, rows, _revoke, ask="Revoke these tokens? No more nodes can join with them.")

    @admin.display(description="for")
    def for_nodes(self, row: JoinToken) -> str:
        return link(page_url("rollout_jointoken", row.id), row)

    @admin.display(description="state")
    def state_badge(self, row: Any) -> str:
        return badge(state_of(row, row.now))

    @admin.display(description="used")
    def uses_so_far(self, row: JoinToken) -> str:
        return f"{row.used} of {row.uses}"

    @admin.display(description="expires", ordering="expires_at")
    def expires(self, row: JoinToken) -> str:
        return exactly(row.expires_at)

    @admin.display(description="expires", ordering="expires_at")
    def expires_in(self, row: JoinToken) -> str:
        return ago(row.expires_at)

    @admin.display(description="accepts nodes", ordering="auto_accept")
    def accepts(self, row: JoinToken) -> str:
        return "automatically" if row.auto_accept else "after a person agrees"

    @admin.display(description="observe only", ordering="observe")
    def observes(self, row: JoinToken) -> str:
        return "yes" if row.observe else "no"

    @admin.display(description="created by")
    def by(self, row: JoinToken) -> str:
        return row.created_by

    @admin.display(description="created", ordering="created_position")
    def created(self, row: JoinToken) -> str:
        return ago(row.created_at)


def _revoke(row: JoinToken) -> str:
    revoke_join_token(row.id)
    return f"The token for {row} is revoked."
