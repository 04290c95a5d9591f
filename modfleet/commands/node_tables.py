"""The tables of `modfleet nodes`: the nodes, one node, its operations, and the join tokens."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from modfleet.client import Document
from modfleet.commands.session import in_a_line, printable, sheet, table
from modfleet.watch import whose

#: Nodes in these phases need a person, so they are listed first.
_URGENCY = {"degraded": 0, "pending": 1, "offline": 2}


MODULE_COLUMNS = (
    "module_name",
    "version",
    "desired",
    "observed",
    "state",
    "drifted_at",
    "drift_reason",
    "content_sha256",
)


def by_urgency(found: Iterable[Document]) -> list[Document]:
    """Return the nodes that need a person first: above all those whose server would not start. The others keep their order."""
    return sorted(found, key=lambda each: (not _would_not_start(each), _URGENCY.get(each["phase"], len(_URGENCY))))


def _would_not_start(node: Document) -> bool:
    return bool((node["degraded"] or {}).get("reason") == "would_not_start")


def nodes_in_a_table(found: list[Document], *, is_narrow: bool) -> RenderableType:
    """Return the nodes as a table. A narrow one has fewer columns; the warnings are below it."""
    columns = _NARROW if is_narrow else tuple(_COLUMNS)
    rows = ([_COLUMNS[name](each) for name in columns] for each in found)
    warnings = (f"{each['name']}: {_warnings(each)}" for each in found if is_narrow and _warnings(each))
    return Group(table(columns, rows), *(Text(printable(each)) for each in warnings))


def _module_in_a_line(module: Document) -> str:
    """Return the module with what the node has of it: `load` if it is loaded, `files`, or nothing if it is absent."""
    has = "" if module["observed"] == "absent" else f" {module['observed']}"
    return f"{module['module_name']} {module['version']}{has} {module['state']}"


#: Fields of a node that have a table of their own.
_SHOWN_BELOW = {"modules", "foreign_modules", "server_state", "doctor", "examined_at"}


def node_in_words(node: Document) -> RenderableType:
    shown = {name: value for name, value in node.items() if name not in _SHOWN_BELOW}
    parts: list[RenderableType] = [sheet(shown | {"warnings": _warnings(node)})]
    if node["modules"]:
        columns = [each.upper().replace("_", " ") for each in MODULE_COLUMNS]
        parts += ["", table(columns, ([each.get(name) for name in MODULE_COLUMNS] for each in node["modules"]))]
    # The previous version of the control plane sends neither.
    if server := node.get("server_state"):
        parts += _server_parts(server)
    if doctor := node.get("doctor"):
        parts += [
            "",
            _doctor_title(node.get("examined_at")),
            table(("STATUS", "CHECK", "MESSAGE", "FIX"), (_finding(each) for each in doctor)),
        ]
    return Group(*parts)


def _doctor_title(examined_at: str | None) -> str:
    if examined_at is None:
        return "Doctor"
    minutes, seconds = divmod(max(0, round(time.time() - datetime.fromisoformat(examined_at).timestamp())), 60)
    return f"Doctor, {f'{minutes} min' if minutes else f'{seconds} s'} ago"


#: A section of `modfleet nodes show` for each, with the fields of `server_state` that it shows.
_SECTIONS = {
    "Server": (
        "problem",
        "message",
        "crash",
        "uptime_seconds",
        "loading",
        "async_loading",
        "used_memory",
        "max_memory",
        "unexpected_error_replies",
        "enable_module_command",
        "include_seen",
        "would_start",
        "would_start_reason",
        "restart",
        "restart_problem",
        "failover",
        "maintenance",
        "withheld",
        "save_problem",
        "full_syncs",
        "run_id",
        "reported_at",
    ),
    "Replication": (
        "role",
        "master",
        "link_status",
        "link_down_seconds",
        "replica_count",
        "min_replicas_to_write",
        "backups",
        "sentinels",
        "addresses",
        "cluster_state",
        "full_coverage",
        "migrating_slots",
    ),
    "Persistence": (
        "persistence",
        "to_do",
        "aof_enabled",
        "aof_last_write_status",
        "rdb_last_bgsave_status",
        "save_points",
    ),
}


def _server_parts(server: Document) -> Iterator[RenderableType]:
    for title, names in _SECTIONS.items():
        yield from ("", title, sheet({name: _or_unknown(server.get(name)) for name in names}))
        if title == "Replication" and server["replicas"]:
            rows = ((each["address"], each["state"], each["lag_bytes"]) for each in server["replicas"])
            yield table(("REPLICA", "STATE", "LAG BYTES"), rows)
    if changes := server.get("configuration_changes"):
        rows = ((each["at"], each["kind"], each["message"]) for each in changes)
        yield from ("", "Changes of the configuration", table(("WHEN", "KIND", "MESSAGE"), rows))
    if server["modules"]:
        modules = (
            (
                each["name"],
                each["version"],
                _installer(each),
                _or_unknown(each.get("recent_calls")) if each["ours"] else "",
                each["path"],
                each["args"],
            )
            for each in server["modules"]
        )
        columns = ("MODULE", "VERSION", "INSTALLED BY", "CALLS IN 10 MIN", "PATH", "ARGUMENTS")
        yield from ("", "Loaded modules", table(columns, modules))


def _installer(module: Document) -> str:
    if module.get("adopted_from"):
        return f"another, adopted: runs from {module['adopted_from']} until the next start"
    if module["ours"]:
        return "Modfleet"
    return "the server (bundled)" if module.get("bundled") else "another"


def _or_unknown(value: Any) -> object:
    return "unknown" if value is None else value


def _finding(each: Document) -> tuple[object, ...]:
    return each["status"], each["check"], each["message"], each["fix"]


def operations_in_a_table(found: list[Document]) -> RenderableType:
    return table(
        ("WHEN", "WHAT", "ATTEMPT", "PHASE", "REASON", "MESSAGE", "SECONDS", "ROLLOUT", "BY"),
        (
            (
                each["finished_at"] or each["scheduled_at"],
                f"{'undo: ' if each['rollback'] else ''}{each['action']} {each['module_name']} {each['version']}",
                each["attempt"],
                each["phase"],
                each["reason"],
                each["message"],
                each["seconds"],
                each["rollout"],
                whose(each),
            )
            for each in found
        ),
    )


def tokens_in_a_table(found: list[Document]) -> RenderableType:
    return table(
        ("ID", "FOR", "STATE", "USED", "EXPIRES", "LABELS", "AUTO-ACCEPT", "OBSERVE", "BY"),
        (
            (
                each["id"],
                each["node"] or each["pattern"],
                each["state"],
                f"{each['used']} of {each['uses']}",
                each["expires_at"],
                in_a_line(each["labels"]),
                in_a_line(each["auto_accept"]),
                in_a_line(each["observe"]),
                each["created_by"],
            )
            for each in found
        ),
    )


def _warnings(node: Document) -> str:
    # The previous version of the control plane sends none.
    return " ".join(each["message"] for each in node.get("warnings", []))


_COLUMNS: dict[str, Callable[[Document], object]] = {
    "NODE": lambda each: each["name"],
    "PHASE": lambda each: each["phase"],
    "PLATFORM": lambda each: each["platform"],
    "SYSTEM": lambda each: each["operating_system"],
    "SERVER": lambda each: f"{each['server']} {each['server_version']}",
    "ROLE": lambda each: each["role"],
    "LABELS": lambda each: in_a_line(each["labels"]),
    "LAST SEEN": lambda each: each["last_seen"] and f"{each['last_seen'][:10]} {each['last_seen'][11:19]}Z",
    "MODULES": lambda each: ", ".join(_module_in_a_line(one) for one in each["modules"]),
    "WARNINGS": _warnings,
}


#: The columns that a narrow terminal has room for.
_NARROW = ("NODE", "PHASE", "SERVER", "LABELS", "LAST SEEN", "MODULES")
