"""How `modfleet nodes` fits its list into a terminal."""

from rich.console import Console

from modfleet.commands.node_tables import by_urgency, nodes_in_a_table

NODE = {
    "name": "cache-1",
    "phase": "degraded",
    "degraded": {"reason": "server_unreachable", "message": "It is away."},
    "platform": "linux/x86_64",
    "operating_system": "debian12",
    "server": "redis",
    "server_version": "7.0.15",
    "role": "master",
    "labels": {"zone": "a"},
    "last_seen": "2026-11-26T18:00:15.700000Z",
    "modules": [{"module_name": "greet", "version": 10000, "observed": "load", "state": "in_sync"}],
    "warnings": [{"message": "server_unreachable: It is away."}],
}


def shown(*, is_narrow, width):
    console = Console(width=width, legacy_windows=False)
    with console.capture() as captured:
        console.print(nodes_in_a_table([NODE], is_narrow=is_narrow))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_terminal_of_100_columns_has_one_line_for_a_node():
    assert shown(is_narrow=True, width=100) == [
        "NODE     PHASE     SERVER        LABELS  LAST SEEN             MODULES",
        "cache-1  degraded  redis 7.0.15  zone=a  2026-11-26 18:00:15Z  greet 10000 load in_sync",
        "cache-1: server_unreachable: It is away.",
    ]


def test_a_wide_terminal_has_all_columns():
    heading, line = shown(is_narrow=False, width=200)
    assert heading.split()[-1] == "WARNINGS"
    assert "linux/x86_64  debian12  redis 7.0.15  master  zone=a" in line
    assert line.endswith("server_unreachable: It is away.")


def test_nodes_that_need_a_person_are_first():
    phases = ["online", "draining", "offline", "pending", "degraded"]
    found = by_urgency([NODE | {"phase": each} for each in phases])
    assert [each["phase"] for each in found] == ["degraded", "pending", "offline", "online", "draining"]


def test_a_server_that_would_not_start_is_first():
    nodes = [
        ("degraded", {"reason": "server_unreachable"}),
        ("online", None),
        ("degraded", {"reason": "would_not_start"}),
    ]
    found = by_urgency([NODE | {"phase": phase, "degraded": degraded} for phase, degraded in nodes])
    assert [each["degraded"] for each in found] == [nodes[2][1], nodes[0][1], None]


def test_a_node_without_a_heartbeat_has_no_time():
    assert "None" not in _text({"last_seen": None})
    assert "2026" not in _text({"last_seen": None})


def _text(changed):
    console = Console(width=200, legacy_windows=False)
    with console.capture() as captured:
        console.print(nodes_in_a_table([NODE | changed], is_narrow=False))
    return captured.get()
