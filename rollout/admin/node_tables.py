"""The tables on a node's page: its server, its doctor, its modules, its latest operations and events."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from django.contrib.humanize.templatetags.humanize import naturaltime
from django.utils.html import format_html, format_html_join

from eventstore import newest_of
from rollout.admin.cells import module_link, operation_title, phase_badge, requester, rollout_link
from rollout.domain.node.events import node_stream
from rollout.domain.topology.addresses import shown
from rollout.messages import FindingStatus
from rollout.models import NodeModule, Operation
from rollout.queries.failures import telling_lines
from rollout.queries.modules import modules_with_origin
from rollout.queries.node_documents import drift_reason, node_detail, shard_nodes
from rollout.queries.nodes import members_of
from rollout.queries.operations import newest_attempts_on
from ui.cells import NOTHING, ago, badge, digest, duration, events_link, link, list_url, page_url, prose
from ui.pages import Table

#: How many rows the tables of operations, of members of a shard and of events show.
FIRST_OPERATIONS = 50
FIRST_MEMBERS = 50
FIRST_EVENTS = 15


def tables_of(node: str) -> list[Table]:
    """Return the tables on the node's page. Raises: `NodeNotFoundError`."""
    detail = node_detail(node)
    server, findings = detail["server_state"], detail["doctor"] or []
    reported = (
        []
        if server is None
        else [
            *_facts(server),
            *_replicas(server),
            *_changes(server),
            _loaded(server),
            _doctor(findings, detail["examined_at"]),
        ]
    )
    return [_modules(node), _operations(node), *_shard(detail["shard"]), *reported, _events(node)]


#: The tables of facts about the server, by title.
_FACTS = {
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
        "persistence",
        "to_do",
        "would_start",
        "would_start_reason",
        "restart",
        "restart_problem",
        "failover",
        "maintenance",
        "withheld",
        "save_problem",
        "full_syncs",
    ),
    "Replication": (
        "role",
        "master",
        "link_status",
        "replica_count",
        "min_replicas_to_write",
        "backups",
        "sentinels",
        "cluster_state",
        "full_coverage",
        "migrating_slots",
    ),
}


#: Names of facts whose field has no unit, or is spelled differently.
_LABELS = {
    "used_memory": "used memory, bytes",
    "max_memory": "max memory, bytes",
    "aof_enabled": "AOF enabled",
    "aof_last_write_status": "AOF last write status",
    "rdb_last_bgsave_status": "RDB last bgsave status",
}


def _facts(server: dict[str, Any]) -> list[Table]:
    return [
        Table(
            title=title,
            columns=[],
            rows=[
                (_LABELS.get(name, name.replace("_", " ")), _fact(server.get(name)))
                for name in names
                if server.get(name) != ""
            ],
            when_empty="Nothing is known: the server does not answer.",
        )
        for title, names in _FACTS.items()
    ]


def _fact(value: object) -> object:
    match value:
        case None:
            return "unknown"
        case bool():
            return "yes" if value else "no"
        case _:
            return value


def _replicas(server: dict[str, Any]) -> list[Table]:
    """Return a table of the server's replicas, or nothing if it has none."""
    rows = [(each["address"], each["state"], _fact(each["lag_bytes"])) for each in server["replicas"]]
    columns = ["Address", "State", "Lag, bytes"]
    return [Table(title="Replicas", columns=columns, rows=rows, when_empty="")] if rows else []


def _changes(server: dict[str, Any]) -> list[Table]:
    """Return a table of the newest changes of the configuration, or nothing if there were none."""
    rows = [
        (ago(datetime.fromisoformat(each["at"])), each["kind"], prose(each["message"]))
        for each in reversed(server.get("configuration_changes", []))
    ]
    return (
        [Table(title="Changes of the configuration", columns=["When", "Kind", "Message"], rows=rows, when_empty="")]
        if rows
        else []
    )


def _shard(shard: str | None) -> list[Table]:
    """Return a table of the nodes of the shard, from its top down; nothing if the node's place is not known."""
    nodes = shard_nodes(members_of(shard)[:FIRST_MEMBERS])
    more = list_url("rollout_node", {"q": shard or ""}) if len(nodes) == FIRST_MEMBERS else ""
    return [shard_table("Shard", nodes, more=more)] if nodes else []


def shard_table(
    title: str, nodes: Iterable[Mapping[str, Any]], reasons: Mapping[str, str] | None = None, *, more: str = ""
) -> Table:
    """Return a table of these nodes, as `queries.node_documents.shard_nodes` has them. `reasons`: why replicas are ignored, by
    address."""
    listed = list(nodes)
    names = {each["name"] for each in listed}
    columns = ["Node", "Role", "Depth", "Master", "Sentinels", "Unmanaged replicas", "Ignored replicas", "Not ready"]
    rows = [
        (
            link(page_url("rollout_node", each["name"]), each["name"]),
            each["role"] or "not known",
            each["depth"],
            _master(each, names),
            each["sentinels"] or NOTHING,
            ", ".join(map(shown, each["unmanaged_replicas"])) or NOTHING,
            ", ".join(_ignored(address, reasons or {}) for address in each["ignored_replicas"]) or NOTHING,
            prose(each["not_ready"]["message"]) if each["not_ready"] else NOTHING,
        )
        for each in listed
    ]
    return Table(title=title, columns=columns, rows=rows, when_empty="", more=more)


def _ignored(address: str, reasons: Mapping[str, str]) -> str:
    return f"{address}: {reasons[address]}" if address in reasons else address


def _master(node: Mapping[str, Any], names: Collection[str]) -> str:
    master = node["master"]
    if not master:
        return NOTHING
    return link(page_url("rollout_node", master), master) if master in names else f"{shown(master)}, unmanaged"


def _loaded(server: dict[str, Any]) -> Table:
    return Table(
        title="Loaded modules",
        columns=["Module", "Version", "Installed by", "Path", "Arguments"],
        rows=[
            (
                each["name"],
                each["version"],
                _installer(each),
                each["path"],
                each["args"] or NOTHING,
            )
            for each in server["modules"]
        ],
        when_empty="The server has loaded no modules, or they are not known.",
    )


def _installer(module: dict[str, Any]) -> str:
    if source := module.get("adopted_from"):
        return f"another, adopted: runs from {source} until the next start"
    if module["ours"]:
        return "Modfleet"
    return "the server (bundled)" if module.get("bundled") else "another"


_WORST_FIRST = [FindingStatus.FAIL, FindingStatus.WARN, FindingStatus.UNKNOWN, FindingStatus.PASS]


def _doctor(findings: list[dict[str, Any]], examined_at: str | None) -> Table:
    examined = "" if examined_at is None else f", {naturaltime(datetime.fromisoformat(examined_at))}"
    return Table(
        title=f"Doctor{examined}",
        columns=["Result", "Check", "Message", "Fix"],
        rows=[
            (badge(each["status"]), each["check"], prose(each["message"]), prose(each["fix"]) or NOTHING)
            for each in sorted(findings, key=lambda each: _WORST_FIRST.index(each["status"]))
        ],
        when_empty="The doctor has reported no results yet.",
    )


def _modules(node: str) -> Table:
    return Table(
        title="Modules",
        columns=["Module", "State", "Desired", "Observed", "Digest", "Since", "By rollout", "By", "Drifted"],
        rows=[
            (
                module_link(each),
                badge(each.state),
                each.desired,
                each.observed,
                _digests(each),
                ago(each.since),
                rollout_link(each.rollout or each.by_rollout or ""),
                each.by_actor or NOTHING,
                _drifted(each),
            )
            for each in modules_with_origin(node)
        ],
        when_empty="This node has no modules, and none are desired.",
    )


def _drifted(row: NodeModule) -> str:
    reason = drift_reason(row)
    return format_html("{} ({})", ago(row.drifted_at), reason) if reason else ago(row.drifted_at)


def _digests(row: NodeModule) -> str:
    """Return the digest of the files on the node, and the desired digest if it differs."""
    if not row.desired_sha256 or row.content_sha256 in {"", row.desired_sha256}:
        return digest(row.content_sha256 or row.desired_sha256)
    return format_html("{} instead of {}", digest(row.content_sha256), digest(row.desired_sha256))


def _operations(node: str) -> Table:
    attempts = newest_attempts_on(node, limit=FIRST_OPERATIONS)
    logged = telling_lines(attempts)
    return Table(
        title="Latest operations",
        columns=["Operation", "Phase", "Result", "Attempt", "Took", "Scheduled", "By rollout", "By"],
        rows=[
            (
                link(page_url("rollout_operation", each.key), operation_title(each)),
                phase_badge(each),
                _result(each, logged.get((each.rollout, each.node, each.generation, each.attempt), "")),
                each.newest_attempt,
                duration(each.seconds),
                ago(each.scheduled_at),
                rollout_link(each.rollout),
                requester(each),
            )
            for each in attempts
        ],
        when_empty="No operations yet.",
        more=list_url("rollout_operation", {"node": node}) if len(attempts) == FIRST_OPERATIONS else "",
    )


def _result(row: Operation, logged: str) -> str:
    """Return the reason, the message and the telling line of the server's log, each in a line of its own."""
    code, line = (
        format_html("<strong>{}</strong>", row.reason),
        format_html("The server logged: <code>{}</code>", logged),
    )
    shown = [(each,) for each, value in ((code, row.reason), (row.message, row.message), (line, logged)) if value]
    return format_html_join("", '<p class="result">{}</p>', shown) or NOTHING


def _events(node: str) -> Table:
    stream = node_stream(node)
    return Table(
        title="Latest events",
        columns=["Time", "Event", "By"],
        rows=[
            (
                ago(each.recorded_at),
                link(page_url("eventstore_storedevent", each.position), each.type),
                each.shown_actor,
            )
            for each in newest_of(stream, limit=FIRST_EVENTS)
        ],
        when_empty="No events yet.",
        more=events_link(stream).url,
    )
