"""Operations: the phase of each rollout on each node, and what the node reported."""

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join

from rollout.admin.cells import module_link, node_link, operation_title, phase_badge, requester, rollout_link
from rollout.domain.placement.events import placement_stream
from rollout.domain.server_health import in_lines
from rollout.messages import Action, Phase
from rollout.models import Operation
from ui.cells import NOTHING, Link, duration, events_link, exactly, page_url
from ui.pages import ReadOnlyAdmin, choice_filter


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin):
    about = (
        "An operation is what one rollout does on one node: its phase, and what the node reported. Each attempt and each "
        "undo has its own row."
    )
    list_display = [
        "node",
        operation_title,
        phase_badge,
        "reason",
        "message",
        "newest",
        "took",
        "of_rollout",
        requester,
    ]
    list_filter = [choice_filter("phase", Phase), choice_filter("action", Action)]
    search_fields = ["node", "message"]
    search_help_text = "Node or message"
    ordering = ["rollout", "ordinal", "scheduled_position"]
    show_full_result_count = False
    fields: ClassVar[Any] = [
        node_link,
        "of_rollout",
        requester,
        module_link,
        operation_title,
        "activation",
        phase_badge,
    ]
    fields += ["reason", "message", "newest", "generation", "took", "content_sha256"]
    fields += ["server", "scheduled", "released", "started", "finished"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Operation]:
        return Operation.attempts.order_by(*self.ordering)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Hide the list from the index: it opens from a rollout or a node, because the full list is very long."""
        return False

    def links(self, row: Operation) -> list[Link]:
        return [
            Link(url=page_url("rollout_rollout", row.rollout), text="Rollout"),
            Link(url=page_url("rollout_node", row.node), text="Node"),
            events_link(placement_stream(row.node, row.module_name)),
        ]

    @admin.display(description="rollout")
    def of_rollout(self, row: Operation) -> str:
        return rollout_link(row.rollout)

    @admin.display(description="attempt", ordering="attempt")
    def newest(self, row: Operation) -> int:
        return row.newest_attempt

    @admin.display(description="took", ordering="seconds")
    def took(self, row: Operation) -> str:
        return duration(row.seconds)

    @admin.display(description="server")
    def server(self, row: Operation) -> str:
        lines = [(each,) for each in in_lines(row.health)]
        return format_html_join("", '<p class="result">{}</p>', lines) or NOTHING

    @admin.display(description="scheduled")
    def scheduled(self, row: Operation) -> str:
        return exactly(row.scheduled_at)

    @admin.display(description="released to the node")
    def released(self, row: Operation) -> str:
        return exactly(row.released_at)

    @admin.display(description="started by the node")
    def started(self, row: Operation) -> str:
        return exactly(row.started_at)

    @admin.display(description="ended")
    def finished(self, row: Operation) -> str:
        return exactly(row.finished_at)
