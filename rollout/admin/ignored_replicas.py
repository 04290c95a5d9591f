"""Replicas that a person has accepted although they are no nodes."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

from accounts.admin import ActingAdmin
from accounts.roles import Permission
from rollout.domain.fleet.events import FLEET_STREAM
from rollout.models import IgnoredReplica
from rollout.queries.ignored_replicas import ignored_documents
from rollout.services.ignored_replicas import unignore_replica
from ui.cells import Link, ago, events_link, exactly, link, page_url, prose
from ui.pages import Table


@admin.register(IgnoredReplica)
class IgnoredReplicaAdmin(ActingAdmin):
    about = (
        "An ignored replica is no node of the fleet. Its master gets modules although the replica does not, so the replica "
        "drops the writes of their commands. A person has accepted that."
    )
    permission = Permission.MANAGE_CLUSTER_MODULES
    actions = ["unignore"]
    list_display = ["replica", "why", "actor", "since"]
    list_display_links = None
    search_fields = ["address", "reason"]
    search_help_text = "Address or reason"
    ordering = ["address"]
    fields = ["address", "why", "actor", "since_exactly"]

    def list_links(self, request: HttpRequest) -> list[Link]:
        ignore = Link(url=reverse("admin:ignore_replica"), text="Ignore a replica")
        return [ignore] if self.has_act_permission(request) else []

    def links(self, row: IgnoredReplica) -> list[Link]:
        return [events_link(FLEET_STREAM)]

    def tables(self, row: IgnoredReplica) -> list[Table]:
        (document,) = ignored_documents([row])
        masters = [(link(page_url("rollout_node", each), each),) for each in document["masters"]]
        empty = "No node of the fleet has this replica now."
        return [Table(title="Replica of", columns=["Node"], rows=masters, when_empty=empty)]

    @admin.action(description="Stop ignoring", permissions=["act"])
    def unignore(self, request: HttpRequest, rows: QuerySet[IgnoredReplica]) -> HttpResponseBase | None:
        ask = "Stop ignoring these replicas? Their masters get no modules while the replicas are no nodes."
        return self.act(request, rows, _unignore, ask=ask)

    @admin.display(description="address", ordering="address")
    def replica(self, row: IgnoredReplica) -> str:
        return link(page_url("rollout_ignoredreplica", row.address), row.address)

    @admin.display(description="reason")
    def why(self, row: IgnoredReplica) -> str:
        return prose(row.reason)

    @admin.display(description="since", ordering="ignored_at")
    def since(self, row: IgnoredReplica) -> str:
        return ago(row.ignored_at)

    @admin.display(description="since")
    def since_exactly(self, row: IgnoredReplica) -> str:
        return exactly(row.ignored_at)


def _unignore(row: IgnoredReplica) -> str:
    unignore_replica(row.address)
    return f"{row.address} is not ignored any more."
