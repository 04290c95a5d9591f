"""Nodes and rollouts in the admin site. All node counts come from the counters of the rollout's row."""

from collections.abc import Iterable
from typing import Any, cast

from django.contrib import admin
from django.db.models import Case, QuerySet, Value, When
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from django.utils.html import format_html

from accounts.admin import ActingAdmin
from accounts.roles import Permission
from eventstore import database_now, in_words, newest_of
from rollout.domain.join_token.events import join_token_stream
from rollout.domain.node.events import node_stream
from rollout.domain.node.state import Identity, NodePhase
from rollout.domain.placement.events import placement_stream
from rollout.domain.rollout.events import Origin, RolloutPhase
from rollout.messages import Action, FindingStatus, Phase, Reason
from rollout.models import JoinToken, Node, NodeModule, Operation, Rollout
from rollout.projections.node_modules import ModuleState
from rollout.queries import dashboard
from rollout.queries.failures import telling_lines
from rollout.queries.join_tokens import state_of
from rollout.queries.nodes import node_detail, node_warnings, nodes_with_liveness
from rollout.queries.operations import newest_attempts_on
from rollout.services.enrolment import revoke_join_token
from rollout.services.nodes import (
    accept_node,
    activate_node,
    decommission_node,
    drain_node,
    forget_node,
    request_rekey,
    revoke_node,
)
from rollout.services.rollouts import abort_rollout, retry_rollout
from rollout.signing import key_id
from ui.cells import (
    NOTHING,
    Link,
    ago,
    badge,
    bar,
    digest,
    duration,
    events_link,
    exactly,
    link,
    list_url,
    module_url,
    page_url,
)
from ui.pages import ReadOnlyAdmin, Table, choice_filter

#: How many rows a table on another object's page shows.
FIRST_ROWS = 50
FIRST_EVENTS = 15


@admin.register(Rollout)
class RolloutAdmin(ActingAdmin):
    """The list of rollouts. A rollout's page is in `console.rollouts`, at the admin site's URL."""

    about = (
        "A rollout installs a module version on many nodes, or removes it, a few nodes at a time. Each node has its own "
        "operation. Abort: no new operations start. Retry: the failed nodes are tried again, in a new rollout if this "
        "one has ended."
    )
    permission = Permission.MANAGE_CLUSTER_MODULES
    actions = ["abort", "retry"]
    list_display = ["what", "phase_badge", "bar", "created", "took", "actor", "origin"]
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

    @admin.display(description="phase", ordering="phase")
    def phase_badge(self, row: Rollout) -> str:
        return badge(row.phase)

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
    return format_html("The failed nodes of {} are scheduled in a new rollout: {}.", row, _rollout_link(uid))


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin):
    about = (
        "An operation is what one rollout does on one node: its phase, and what the node reported. Each attempt and each "
        "undo has its own row."
    )
    list_display = ["node", "what", "phase_badge", "reason", "message", "newest", "took", "of_rollout", "whose"]
    list_filter = [choice_filter("phase", Phase), choice_filter("action", Action)]
    search_fields = ["node", "message"]
    search_help_text = "Node or message"
    ordering = ["rollout", "ordinal", "scheduled_position"]
    show_full_result_count = False
    fields = ["of_node", "of_rollout", "whose", "module", "what", "activation", "phase_badge", "reason", "message"]
    fields += ["newest", "generation", "took", "content_sha256", "scheduled", "released", "started", "finished"]

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

    @admin.display(description="node", ordering="node")
    def of_node(self, row: Operation) -> str:
        return _node_link(row.node)

    @admin.display(description="rollout")
    def of_rollout(self, row: Operation) -> str:
        return _rollout_link(row.rollout)

    @admin.display(description="by", ordering="asked_by")
    def whose(self, row: Operation) -> str:
        return _whose(row)

    @admin.display(description="attempt", ordering="attempt")
    def newest(self, row: Operation) -> int:
        return row.newest_attempt

    @admin.display(description="module")
    def module(self, row: Operation) -> str:
        return _module_link(row)

    @admin.display(description="operation", ordering="action")
    def what(self, row: Operation) -> str:
        return _what(row)

    @admin.display(description="phase", ordering="phase")
    def phase_badge(self, row: Operation) -> str:
        return badge(row.phase)

    @admin.display(description="took", ordering="seconds")
    def took(self, row: Operation) -> str:
        return duration(row.seconds)

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


#: What the page of a node shows of its server: a table for each title, with names of facts.
_SERVER_FACTS = {
    "Server": (
        "problem",
        "message",
        "uptime_seconds",
        "loading",
        "async_loading",
        "aof_enabled",
        "aof_last_write_status",
        "rdb_last_bgsave_status",
        "save_points",
        "used_memory",
        "max_memory",
        "unexpected_error_replies",
        "enable_module_command",
        "include_seen",
    ),
    "Replication": ("role", "master", "link_status", "replica_count", "cluster_state", "migrating_slots"),
}


def _server_tables(node: dict[str, Any]) -> list[Table]:
    """Return the tables about the node's server and its doctor; none if its agent has reported nothing."""
    server, doctor = node["server_state"], node["doctor"]
    if server is None:
        return []
    failed_first = sorted(doctor or [], key=lambda each: _FINDINGS.index(each["status"]))
    facts = [
        Table(
            title=title,
            columns=["Fact", "Value"],
            rows=[(name.replace("_", " "), _fact(server[name])) for name in names if server[name] != ""],
            when_empty="Nothing is known: the server does not answer.",
        )
        for title, names in _SERVER_FACTS.items()
    ]
    replicas = [(each["address"], each["state"], _fact(each["lag_bytes"])) for each in server["replicas"]]
    if replicas:
        facts.append(Table(title="Replicas", columns=["Address", "State", "Lag, bytes"], rows=replicas, when_empty=""))
    loaded = [
        (each["name"], each["version"], "Modfleet" if each["ours"] else "another", each["path"], each["args"])
        for each in server["modules"]
    ]
    return [
        *facts,
        Table(
            title="Loaded modules",
            columns=["Module", "Version", "Installed by", "Path", "Arguments"],
            rows=loaded,
            when_empty="The server has loaded no modules, or they are not known.",
        ),
        Table(
            title="Doctor",
            columns=["Result", "Check", "Message", "Fix"],
            rows=[(badge(each["status"]), each["check"], each["message"], each["fix"]) for each in failed_first],
            when_empty="The doctor has reported no results yet.",
        ),
    ]


_FINDINGS = [FindingStatus.FAIL, FindingStatus.WARN, FindingStatus.UNKNOWN, FindingStatus.PASS]


def _fact(value: object) -> object:
    match value:
        case None:
            return "unknown"
        case bool():
            return "yes" if value else "no"
        case _:
            return value


@admin.register(Node)
class NodeAdmin(ActingAdmin):
    about = (
        "A node is a Redis or Valkey server with its agent. It joins the fleet with a join token, or is pending until a "
        "person accepts it. A degraded node gets nothing until its server can be used. A draining node keeps its modules and "
        "gets nothing new. A decommissioned node is out of the fleet until its agent "
        "is restarted."
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
        "platform",
        "runs",
        "all_labels",
    ]
    list_filter = [choice_filter("phase", NodePhase), "platform"]
    search_fields = ["name", "server", "server_version"]
    search_help_text = "Name or server"
    ordering = [Case(When(phase=NodePhase.PENDING, then=0), When(phase=NodePhase.DEGRADED, then=1), default=2), "name"]
    fields = [
        "name",
        "phase_badge",
        "identity_badge",
        "key",
        "seen_exactly",
        "agent_started",
        "running_server",
        "role",
        "platform",
        "runs",
    ]
    fields += ["hosts", "all_labels", "as_desired", "joined"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        return nodes_with_liveness(super().get_queryset(request))

    def offered(self, row: Node) -> list[str]:
        if row.phase == NodePhase.DECOMMISSIONED:
            return []
        of_fleet = [] if row.phase == NodePhase.PENDING else ["activate" if row.draining else "drain", "forget"]
        return [*of_fleet, *_OF_IDENTITY[Identity(row.identity)], "decommission"]

    def list_links(self, request: HttpRequest) -> list[Link]:
        add = Link(url=reverse("admin:add_node"), text="Add a node")
        return [add] if self.has_act_permission(request) else []

    def links(self, row: Node) -> list[Link]:
        of_modules = Link(url=events_link(f"placement:{row.name}:").url, text="Events of its modules")
        return [events_link(node_stream(row.name)), of_modules]

    def tables(self, row: Node) -> list[Table]:
        attempts = newest_attempts_on(row.name, limit=FIRST_ROWS)
        logged = telling_lines(attempts)
        return [
            *_server_tables(node_detail(row.name)),
            Table(
                title="Modules",
                columns=["Module", "State", "Desired", "Observed", "Digest", "Since", "By rollout", "By", "Drifted"],
                rows=[
                    (
                        _module_link(each),
                        badge(each.state),
                        each.desired,
                        each.observed,
                        _digests(each),
                        ago(each.since),
                        _rollout_link(each.rollout or each.by_rollout or ""),
                        each.by_actor or NOTHING,
                        ago(each.drifted_at),
                    )
                    for each in cast("list[Any]", dashboard.modules_with_origin(row.name))
                ],
                when_empty="This node has no modules, and none are desired.",
            ),
            Table(
                title="Latest operations",
                columns=[
                    "Operation",
                    "Phase",
                    "Reason",
                    "Message",
                    "Attempt",
                    "Seconds",
                    "Server logged",
                    "Scheduled",
                    "By rollout",
                    "By",
                ],
                rows=[
                    (
                        link(page_url("rollout_operation", each.key), _what(each)),
                        *_outcome(each),
                        logged.get((each.rollout, each.node, each.generation, each.attempt)) or NOTHING,
                        ago(each.scheduled_at),
                        _rollout_link(each.rollout),
                        _whose(each),
                    )
                    for each in attempts
                ],
                when_empty="No operations yet.",
                more=list_url("rollout_operation", {"node": row.name}) if len(attempts) == FIRST_ROWS else "",
            ),
            Table(
                title="Latest events",
                columns=["Time", "Event", "By"],
                rows=[
                    (
                        ago(each.recorded_at),
                        link(page_url("eventstore_storedevent", each.position), each.type),
                        each.shown_actor,
                    )
                    for each in newest_of(node_stream(row.name), limit=FIRST_EVENTS)
                ],
                when_empty="No events yet.",
                more=events_link(node_stream(row.name)).url,
            ),
        ]

    @admin.action(description="Drain", permissions=["act"])
    def drain(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        return self.act(request, rows, _drain, ask="Drain these nodes? They keep their modules and get nothing new.")

    @admin.action(description="Activate", permissions=["act"])
    def activate(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        return self.act(request, rows, _activate, ask="Activate these nodes? Rollouts include them again.")

    @admin.action(description="Forget reported state", permissions=["act"])
    def forget(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        ask = "Forget what these nodes have reported? Each node is shown as offline until its next heartbeat. The servers are not changed."
        return self.act(request, rows, _forget, ask=ask)

    @admin.action(description="Accept", permissions=["act"])
    def accept(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        ask = "Accept these nodes? Compare the key of each with the one that the installer printed on its host."
        return self.act(request, rows, lambda row: _accept(row, self.confirmed(request, row)), ask=ask, shows=_key_ids)

    @admin.action(description="Replace key", permissions=["act"])
    def rekey(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        ask = "Ask these nodes to replace their keys and broker passwords? They stay online."
        return self.act(request, rows, _rekey, ask=ask)

    @admin.action(description="Revoke", permissions=["act"])
    def revoke(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        ask = "Revoke these nodes? All their messages are refused until they join again with a new token."
        return self.act(request, rows, _revoke, ask=ask)

    @admin.action(description="Decommission", permissions=["act"])
    def decommission(self, request: HttpRequest, rows: QuerySet[Node]) -> HttpResponseBase | None:
        ask = "Decommission these nodes? Rollouts in progress continue without them."
        return self.act(request, rows, _decommission, ask=ask)

    @admin.display(description="phase", ordering="phase")
    def phase_badge(self, row: Any) -> str:
        warnings = node_warnings(row, row.clock_skew_seconds, row.doubts or [])
        return format_html("{} {}", badge(row.phase), " ".join(each["message"] for each in warnings))

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


def _accept(row: Node, key: str) -> str:
    """Accept the node with the key that the person has seen: another host may have joined under its name since."""
    accept_node(row.name, key=key)
    return f"{row} is accepted."


def _rekey(row: Node) -> str:
    request_rekey(row.name)
    return f"{row} is asked to replace its key."


def _revoke(row: Node) -> str:
    revoke_node(row.name)
    return f"{row} is revoked."


def _drain(row: Node) -> str:
    drain_node(row.name)
    return f"{row} is draining and gets nothing new."


def _activate(row: Node) -> str:
    activate_node(row.name)
    return f"{row} is active. Rollouts include it again."


def _forget(row: Node) -> str:
    forget_node(row.name)
    return f"Forgot what {row} has reported."


def _decommission(row: Node) -> str:
    decommission_node(row.name)
    return f"{row} is decommissioned."


@admin.register(JoinToken)
class JoinTokenAdmin(ActingAdmin):
    about = (
        "A host joins the fleet with a join token. A token for one node can be used once; a token for a group has a pattern "
        "of names and a limit of uses. Revoking a token does not change the nodes that have used it."
    )
    permission = Permission.UPDATE_NODE
    actions = ["revoke"]
    list_display = ["for_nodes", "state_badge", "uses_so_far", "expires", "auto_accept", "observe", "by", "created"]
    list_display_links = None
    search_fields = ["id", "node", "pattern"]
    search_help_text = "Id, node or pattern"
    ordering = ["-created_position"]
    fields = ["id", "for_nodes", "state_badge", "uses_so_far", "expires", "auto_accept", "observe", "by", "created"]

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
        return self.act(request, rows, _revoke_token, ask="Revoke these tokens? No more nodes can join with them.")

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

    @admin.display(description="created by")
    def by(self, row: JoinToken) -> str:
        return row.created_by

    @admin.display(description="created", ordering="created_position")
    def created(self, row: JoinToken) -> str:
        return ago(row.created_at)


def _revoke_token(row: JoinToken) -> str:
    revoke_join_token(row.id)
    return f"The token for {row} is revoked."


@admin.register(NodeModule)
class NodeModuleAdmin(ReadOnlyAdmin):
    about = (
        "Each row is a module version on a node: its desired state (load, files or absent), the state that the agent "
        "observed, and the digest of the files."
    )
    list_display = ["of_node", "module", "desired", "observed", "state_badge", "observed_digest", "in_progress"]
    list_display_links = None
    list_filter = [choice_filter("state", tuple(ModuleState))]
    search_fields = ["node", "module_name", "content_sha256"]
    search_help_text = "Node, module or digest"
    ordering = ["module_name", "version", "node"]
    fields = ["of_node", "module", "desired", "desired_sha256", "observed", "content_sha256", "state_badge"]
    fields += ["in_progress"]

    @admin.display(description="node", ordering="node")
    def of_node(self, row: NodeModule) -> str:
        return _node_link(row.node)

    @admin.display(description="module", ordering="module_name")
    def module(self, row: NodeModule) -> str:
        return _module_link(row)

    @admin.display(description="state", ordering="state")
    def state_badge(self, row: NodeModule) -> str:
        return badge(row.state)

    @admin.display(description="digest")
    def observed_digest(self, row: NodeModule) -> str:
        return digest(row.content_sha256)

    @admin.display(description="rollout in progress")
    def in_progress(self, row: NodeModule) -> str:
        return _rollout_link(row.rollout)


def _what(row: Operation) -> str:
    return f"{'undo: ' if row.rollback else ''}{row.action} {row.module_name} {row.version}"


def _whose(row: Operation) -> str:
    """Return who requested the operation, and who canceled it."""
    asked = "the strategy" if row.automatic else row.asked_by or NOTHING
    if not row.canceled_by:
        return asked
    verb = "taken over" if row.reason == Reason.NEWER_ROLLOUT else "canceled"
    return f"{asked}, {verb} by {in_words(row.canceled_by)}"


def _outcome(row: Operation) -> Iterable[object]:
    return badge(row.phase), row.reason or NOTHING, row.message or NOTHING, row.newest_attempt, duration(row.seconds)


def _digests(row: NodeModule) -> str:
    """Return the digest of the files on the node, and the desired digest if it differs."""
    if not row.desired_sha256 or row.content_sha256 in {"", row.desired_sha256}:
        return digest(row.content_sha256 or row.desired_sha256)
    return format_html("{} instead of {}", digest(row.content_sha256), digest(row.desired_sha256))


def _node_link(name: str) -> str:
    return link(page_url("rollout_node", name), name)


def _rollout_link(uid: str) -> str:
    return link(page_url("rollout_rollout", uid), uid[:8]) if uid else NOTHING


def _module_link(row: Rollout | Operation | NodeModule) -> str:
    return link(module_url(row.module_name, row.version), f"{row.module_name} {row.version}")
