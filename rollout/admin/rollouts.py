"""The list of rollouts. A rollout's page is in `console.rollouts`, at the admin site's URL."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from django.utils.html import format_html

from accounts.admin import ActingAdmin
from accounts.roles import Permission
from rollout.admin.cells import phase_badge, rollout_link
from rollout.domain.rollout.events import Origin, RolloutPhase
from rollout.messages import Action
from rollout.models import Rollout
from rollout.services.rollouts import abort_rollout, retry_rollout
from ui.cells import Link, ago, bar, duration
from ui.pages import choice_filter


@admin.register(Rollout)
class RolloutAdmin(ActingAdmin):
    about = (
        "A rollout installs a module version on many nodes, or removes it, a few nodes at a time. Each node has its own "
        "operation. Abort: no new operations start. Retry: the failed nodes are tried again, in a new rollout if this "
        "one has ended."
    )
    permission = Permission.MANAGE_CLUSTER_MODULES
    actions = ["abort", "retry"]
    list_display = ["what", phase_badge, "bar", "created", "took", "actor", "origin"]
    list_filter = [
        choice_filter("phase", RolloutPhase),
        choice_filter("action", Action),
        choice_filter("origin", Origin),
    ]
    search_fields = ["uid", "module_name", "actor"]
    search_help_text = "UID, module or actor"
    ordering = ["-started_position"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Rollout]:
        rows: QuerySet[Rollout] = super().get_queryset(request)
        return rows.defer("document")

    def list_links(self, request: HttpRequest) -> list[Link]:
        start = Link(url=reverse("admin:start_rollout"), text="Start a rollout")
        return [start] if self.has_act_permission(request) else []

    @admin.action(description="Abort", permissions=["act"])
    def abort(self, request: HttpRequest, rows: QuerySet[Rollout]) -> HttpResponseBase | None:
        return self.act(request, rows, _abort, ask=_ABORT)

    @admin.action(description="Retry failed nodes", permissions=["act"])
    def retry(self, request: HttpRequest, rows: QuerySet[Rollout]) -> HttpResponseBase | None:
        return self.act(request, rows, _retry)

    @admin.display(description="rollout", ordering="module_name")
    def what(self, row: Rollout) -> str:
        return row.title

    @admin.display(description="progress")
    def bar(self, row: Rollout) -> str:
        return bar(row)

    @admin.display(description="started", ordering="started_position")
    def created(self, row: Rollout) -> str:
        return ago(row.created_at)

    @admin.display(description="took")
    def took(self, row: Rollout) -> str:
        return duration((row.finished_at - row.created_at).total_seconds() if row.finished_at else None)


_ABORT = (
    "Abort these rollouts? No new operations start. Operations in progress finish or are undone, as each rollout's "
    "strategy says."
)


def _abort(row: Rollout) -> str:
    abort_rollout(row.uid)
    return f"Abort requested for {row}. No new operations start."


def _retry(row: Rollout) -> str:
    uid = retry_rollout(row.uid, origin=Origin.CONSOLE)
    if uid == row.uid:
        return f"The failed nodes of {row} are scheduled again."
    return format_html("The failed nodes of {} are scheduled in a new rollout: {}.", row, rollout_link(uid))
