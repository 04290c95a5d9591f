"""What `modfleet nodes --tree` prints."""

from rich.console import Console

from modfleet.commands.tree import shards_in_a_tree


def node(name, shard, *, master=None, depth=0, role="master", **more):
    lists: dict[str, list[str]] = {"replicas": [], "unmanaged_replicas": [], "ignored_replicas": []}
    place = {"shard": shard, "master": master, "depth": depth, "role": role, "sentinels": None, "not_ready": None}
    return {"name": name, "phase": "online", **lists, **place, **more}


def printed(parts):
    console = Console(width=200, legacy_windows=False)
    with console.capture() as captured:
        console.print(parts)
    return [line.rstrip() for line in captured.get().splitlines()]


def shown(*nodes, ignored=()):
    return printed(shards_in_a_tree(list(nodes), list(ignored)))


def test_a_shard_with_all_kinds_of_replicas():
    reason = {"reason": "server_not_ready", "message": "The server is loading its data."}
    lines = shown(
        node("m", "m", sentinels=3, unmanaged_replicas=["10.0.0.9:6379"], ignored_replicas=["10.0.0.8:6379"]),
        node("b", "m", master="m", depth=1, role="replica", phase="offline"),
        node("c", "m", master="b", depth=2, role="replica", not_ready=reason),
        node("a", "m", master="m", depth=1, role="replica", sentinels=2),
    )
    assert lines == [
        "m: master, watched by 3 Sentinels",
        "├── a: replica",
        "├── b: replica, offline",
        "│   └── c: replica. The server is loading its data.",
        "├── 10.0.0.9:6379: unmanaged replica",
        "└── 10.0.0.8:6379: ignored replica",
    ]


def test_nodes_that_copy_a_replica_without_an_agent():
    lines = shown(
        node("m", "m", unmanaged_replicas=["10.0.0.9:6379"]),
        node("c", "m", master="10.0.0.9:6379", depth=2, role="replica"),
        node("a", "m", master="m", depth=1, role="replica"),
    )
    assert lines == ["m: master", "├── a: replica", "└── 10.0.0.9:6379: unmanaged replica", "    └── c: replica"]


def test_a_master_without_an_agent():
    lines = shown(
        node("a", "10.0.0.9:6379", master="10.0.0.9:6379", depth=1, role="replica", sentinels=1),
        node("b", "10.0.0.9:6379", master="a", depth=2, role="replica"),
    )
    assert lines == ["10.0.0.9:6379: unmanaged master, watched by 1 Sentinel", "└── a: replica", "    └── b: replica"]


def test_a_loop_ends():
    lines = shown(node("a", "a", master="b", role="replica"), node("b", "a", master="a", depth=1, role="replica"))
    assert lines == ["a: replica", "└── b: replica"]


def test_a_replica_that_does_not_tell_its_master():
    assert shown(node("a", "a", master="unknown", depth=1, role="replica")) == [
        "unknown: unmanaged master",
        "└── a: replica",
    ]


def test_shards_are_sorted_and_what_is_not_known_is_last():
    lines = shown(node("z", None), node("b", "b", role=""), node("a", "a"), {"name": "old"})
    assert lines == ["a: master", "b: role not known", "z: its place is not known", "old: its place is not known"]


def test_a_chain_of_many_servers():
    nodes = [node(f"{n:02}", "00", master=f"{n - 1:02}" if n else None, depth=n) for n in range(30)]
    assert [line.split()[-2] for line in shown(*nodes)] == [f"{n:02}:" for n in range(30)]


def test_a_terminal_obeys_no_address():
    assert "\x1b" not in "".join(shown(node("a", "a", unmanaged_replicas=["\x1b[31m:1"])))


def test_ignored_replicas_are_listed():
    replica = {
        "address": "a:1",
        "reason": "Backup",
        "actor": "alice",
        "ignored_at": "2026-01-01T00:00:00Z",
        "masters": ["m", "n"],
    }
    *_, heading, line = shown(node("a", "a"), ignored=[replica])
    assert heading.split() == ["IGNORED", "REPLICA", "REASON", "BY", "SINCE", "REPLICA", "OF"]
    assert line.split() == ["a:1", "Backup", "alice", "2026-01-01T00:00:00Z", "m,", "n"]
