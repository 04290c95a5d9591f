"""Nodes: their phase, identity and profile, and the actions of an operator."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import Case, QuerySet, When
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from django.utils.html import format_html

from accounts.admin import ActingAdmin
from accounts.roles import Permission
from rollout.admin.node_tables import tables_of
from rollout.domain.node.events import node_stream
from rollout.domain.node.state import Identity, NodePhase
from rollout.models import Node
from rollout.queries.node_warnings import node_warnings
from rollout.queries.nodes import nodes_with_liveness
from rollout.services.nodes import (
    accept_node,
    activate_node,
    decommission_node,
    drain_node,
    forget_node,
    request_rekey,
    revoke_node,
)
from rollout.signing import key_id
from ui.cells import NOTHING, Link, ago, badge, events_link, exactly, link, list_url, prose
from ui.pages import Table, choice_filter


@admin.register(Node)
class NodeAdmin(ActingAdmin):
    about = (
        "A node is a Redis or Valkey server with its agent. It joins the fleet with a join token, or is pending until a "
        "person accepts it. A degraded node gets nothing until its server can be used. A draining node keeps its modules and "
        "gets nothing new. A decommissioned node is out of the fleet until its agent is restarted."
    )
    permission = Permission.UPDATE_NODE
    change_form_template = "console/node.html"
    actions = ["accept", "drain", "activate", "rekey", "forget", "revoke", "decommission"]
    list_display = [
        "name",
        "phase_badge",
        "seen",
        "as_desired",
        "running_server",
        "role",
        "in_shard",
        "platform",
        "runs",
        "all_labels",
    ]
    list_filter = [choice_filter("phase", NodePhase), "platform"]
    search_fields = ["name", "server", "server_version", "shard"]
    search_help_text = "Name, server or shard"
    ordering = [Case(When(phase=NodePhase.PENDING, then=0), When(phase=NodePhase.DEGRADED, then=1), default=2), "name"]
    fields = ["name", "phase_badge", "identity_badge", "key", "seen_exactly", "agent_started", "running_server", "role"]
    fields += ["in_shard", "own_address", "platform", "runs", "hosts", "all_labels", "as_desired", "joined"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        return nodes_with_liveness(super().get_queryset(request))

    def offered(self, row: Node) -> list[str]:
        if row.phase == NodePhase.DECOMMISSIONED:
            return []
        of_fleet = [] if row.phase == NodePhase.PENDING else ["activate" if row.draining else "drain", "forget"]
        return [*of_fleet, *_OF_IDENTITY[Identity(row.identity)], "decommission"]

    def list_links(self, request: HttpRequest) -> list[Link]:
        ignored = Link(url=list_url("rollout_ignoredreplica", {}), text="Ignored replicas")
        add = Link(url=reverse("admin:add_node"), text="Add a node")
        return [ignored, add] if self.has_act_permission(request) else [ignored]

    def links(self, row: Node) -> list[Link]:
        of_modules = Link(url=events_link(f"placement:{row.name}:").url, text="Events of its modules")
        return [events_link(node_stream(row.name)), of_modules]

    def tables(self, row: Node) -> list[Table]:
        return tables_of(row.name)

    @admin.action(description="Drain", permissions=["act"])
    def drain(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        ask = "Drain these nodes? They keep their modules and get nothing new."
        return self.act(request, rows, _with_name(drain_node, "{} is draining and gets nothing new."), ask=ask)

    @admin.action(description="Activate", permissions=["act"])
    def activate(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        ask = "Activate these nodes? Rollouts include them again."
        return self.act(request, rows, _with_name(activate_node, "{} is active. Rollouts include it again."), ask=ask)

    @admin.action(description="Forget reported state", permissions=["act"])
    def forget(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        ask = "Forget what these nodes have reported? Each node is shown as offline until its next heartbeat. The servers are not changed."
        return self.act(request, rows, _with_name(forget_node, "Forgot what {} has reported."), ask=ask)

    @admin.action(description="Accept", permissions=["act"])
    def accept(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        """Accept each node with the key that the question has shown: another host may have joined under its name since."""

        def accept(row: Node) -> str:
            accept_node(row.name, key=self.confirmed(request, row))
            return f"{row} is accepted."

        ask = "Accept these nodes? Compare the key of each with the one that the installer printed on its host."
        return self.act(request, rows, accept, ask=ask, shows=_key_ids)

    @admin.action(description="Replace key", permissions=["act"])
    def rekey(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        ask = "Ask these nodes to replace their keys and broker passwords? They stay online."
        return self.act(request, rows, _with_name(request_rekey, "{} is asked to replace its key."), ask=ask)

    @admin.action(description="Revoke", permissions=["act"])
    def revoke(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        ask = "Revoke these nodes? All their messages are refused until they join again with a new token."
        return self.act(request, rows, _with_name(revoke_node, "{} is revoked."), ask=ask)

    @admin.action(description="Decommission", permissions=["act"])
    def decommission(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        ask = "Decommission these nodes? Rollouts in progress continue without them."
        return self.act(request, rows, _with_name(decommission_node, "{} is decommissioned."), ask=ask)

    @admin.display(description="phase", ordering="phase")
    def phase_badge(self, row: Any) -> str:
        warnings = node_warnings(row, row.clock_skew_seconds, row.doubts or [])
        if not warnings:
            return badge(row.phase)
        why = prose(" ".join(each["message"] for each in warnings))
        return format_html('{} <span class="why">{}</span>', badge(row.phase), why)

    @admin.display(description="identity", ordering="identity")
    def identity_badge(self, row: Node) -> str:
        return badge(row.identity)

    @admin.display(description="key")
    def key(self, row: Node) -> str:
        return _key_ids(row) or NOTHING

    @admin.display(description="last seen", ordering="last_seen")
    def seen(self, row: Any) -> str:
        return ago(row.last_seen)

    @admin.display(description="last seen")
    def seen_exactly(self, row: Any) -> str:
        return exactly(row.last_seen)

    @admin.display(description="agent started")
    def agent_started(self, row: Any) -> str:
        return exactly(row.hello_at)

    @admin.display(description="modules")
    def as_desired(self, row: Any) -> str:
        if row.last_seen is None and row.in_sync:
            return NOTHING  # nothing is known of its modules yet
        return badge("in_sync" if row.in_sync else "differing")

    @admin.display(description="server", ordering="server")
    def running_server(self, row: Node) -> str:
        return f"{row.server} {row.server_version}".strip() or NOTHING

    @admin.display(description="shard", ordering="shard")
    def in_shard(self, row: Any) -> str:
        return link(list_url("rollout_node", {"q": row.shard}), row.shard) if row.shard else NOTHING

    @admin.display(description="address")
    def own_address(self, row: Node) -> str:
        return row.address or "as the node reports it"

    @admin.display(description="operating system", ordering="operating_system")
    def runs(self, row: Node) -> str:
        return row.operating_system or NOTHING

    @admin.display(description="host names")
    def hosts(self, row: Node) -> str:
        return ", ".join(row.api_hosts) or NOTHING

    @admin.display(description="labels")
    def all_labels(self, row: Node) -> str:
        labels = {**row.agent_labels, **row.labels}
        return ", ".join(f"{name}={value}" for name, value in sorted(labels.items())) or NOTHING

    @admin.display(description="joined")
    def joined(self, row: Node) -> str:
        return exactly(row.joined_at)


#: The actions that an identity allows.
_OF_IDENTITY = {
    Identity.UNSIGNED: ["revoke"],
    Identity.PENDING: ["accept", "revoke"],
    Identity.SIGNED: ["rekey", "revoke"],
    Identity.REVOKED: [],
}


def _key_ids(row: Node) -> str:
    return ", ".join(key_id(public_key) for public_key, _ in row.keys)


def _with_name(do: Callable[[str], None], done: str) -> Callable[[Node], str]:
    """Return a function that calls `do` with the name of a node, and returns `done` with it."""

    def act(row: Node) -> str:
        do(row.name)
        return done.format(row)

    return act
