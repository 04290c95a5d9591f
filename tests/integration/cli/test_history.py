"""Four rollouts of one node: one failed and undone, one retried, one superseded, one canceled. Every view tells all."""

import csv
import io
import json

import pytest

from rollout.messages import Phase, Reason
from rollout.process.advance import advance
from tests.recorded_fleet import rollout, say, start, upload

pytestmark = pytest.mark.slow
NODE = "n1"
MESSAGE = "no symbol"


def begin(run, module, version, *words):
    result = run("rollout", "start", module, str(version), "--canary", "1", "--max-failures", "0", "--json", *words)
    uid = json.loads(result.stdout)["uid"]
    advance(uid)
    return uid


def fail(uid):
    say(uid, NODE, Phase.FAILED, reason=Reason.LOAD_FAILED, message=MESSAGE)
    advance(uid)
    assert rollout(uid).phase == "paused"


@pytest.fixture
def four(run, module):
    """The uids of the four, by what has become of them."""
    for version in (2, 3, 4):
        upload(module_name=module, version=version, content=f"c{version}")
    undone = begin(run, module, 1)
    fail(undone)
    assert run("rollout", "rollback", undone, "--yes").exit_code == 0
    say(undone, NODE)
    advance(undone)
    retried = begin(run, module, 2)
    fail(retried)
    for verb in ("retry", "resume"):
        assert run("rollout", verb, retried).exit_code == 0
    for node in (NODE, "n2", "n3"):
        say(retried, node)
        advance(retried)
    superseded = begin(run, module, 3, "--node", NODE, "--approval")
    canceled = begin(run, module, 4, "--node", NODE, "--supersede", "--approval")
    advance(superseded)
    assert run("rollout", "cancel", canceled, NODE).exit_code == 0
    return {"undone": undone, "retried": retried, "superseded": superseded, "canceled": canceled}


#: What a view of the rollout has to say, and what a view of the node in it; `{canceled}` is that one's uid.
OF_ROLLOUT = {
    "undone": ["load_failed", MESSAGE, "max_failures", "by the user alice", "rolled"],
    "retried": [
        *("load_failed", MESSAGE, "max_failures", "succeeded"),
        *("retried by the user alice", "resumed by the user alice"),
    ],
    "superseded": [
        "superseded",
        "newer_rollout",
        "n1 taken over by the user alice",
        "superseded by rollout {canceled}",
    ],
    "canceled": ["n1 canceled by the user alice"],
}
#: The report has actions with their fields, and no sentences.
OF_REPORT = {
    **OF_ROLLOUT,
    "retried": ["retry", "resume"],
    "superseded": ["supersede", "newer_rollout"],
    "canceled": ["cancel"],
}
OF_NODE = {
    "undone": ["load_failed", MESSAGE, "rolled"],
    "retried": ["load_failed", MESSAGE, "succeeded"],
    "superseded": ["newer_rollout", "superseded by rollout {canceled}"],
    "canceled": ["canceled", "manual"],
}
OF_NODES = {
    **OF_NODE,
    "superseded": [*OF_NODE["superseded"], "alice, taken over by the user alice"],
    "canceled": ["alice, canceled by the user alice"],
}
WHY_OF_NODE = {**OF_NODE, "canceled": ["canceled at", "by the user alice"]}


@pytest.mark.parametrize(
    ("view", "told"),
    [
        ("report --json", OF_REPORT),
        ("why", OF_ROLLOUT),
        ("status", OF_ROLLOUT),
        ("report", OF_NODE),
        ("report --json", OF_NODE),
        ("nodes", OF_NODES),
        ("why n1", WHY_OF_NODE),
    ],
)
def test_a_view_tells_the_whole_story(run, four, view, told):
    name, *more = view.split()
    for kind, words in told.items():
        shown = run("rollout", name, four[kind], *more)
        assert shown.exit_code == 0, shown.output
        missing = [each for each in words if each.format(**four) not in shown.stdout.lower()]
        assert missing == [], shown.stdout


def test_the_history_of_the_node_has_a_line_for_each(run, module, four):
    table = run("nodes", "history", NODE, "--module", module).stdout
    head, *lines = table.splitlines()
    assert head.split()[-1] == "BY"
    asked = [each.split("  ")[-1].strip() for each in lines]
    assert asked == ["alice, canceled by the user alice", "alice, taken over by the user alice", *["alice"] * 4]
    found = json.loads(run("nodes", "history", NODE, "--module", module, "--json").stdout)
    undone, retried, superseded, canceled = four.values()
    assert [(each["rollout"], each["phase"], each["rollback"], each["attempt"]) for each in found] == [
        (canceled, "canceled", False, 0),
        (superseded, "canceled", False, 0),
        (retried, "succeeded", False, 2),
        (retried, "failed", False, 1),
        (undone, "rolled_back", True, 1),
        (undone, "failed", False, 1),
    ]
    assert len(lines) == len(found)


def test_the_status_says_who_started_it_and_how(run, four):
    shown = run("rollout", "status", four["undone"]).stdout
    assert "started by the user alice at 20" in shown
    assert "origin cli" in shown
    assert "strategy: canary 1, max_parallel 10, max_failures 0, on_failure pause" in shown


def test_the_table_of_the_report_has_each_attempt_and_each_stop(run, four):
    rows = list(csv.DictReader(io.StringIO(run("rollout", "report", four["undone"]).stdout)))
    kinds = [(each["record"], each["phase"], each["reason"]) for each in rows if each["node"] == NODE]
    assert kinds == [("attempt", "failed", "load_failed"), ("node", "rolled_back", "")]
    stops = [(each["action"], each["rule"], each["actor"]) for each in rows if each["record"] == "stop"]
    assert stops == [("pause", "max_failures", ""), ("rollback", "manual", "alice")]


def test_a_rollback_says_what_it_is_what_it_follows_and_what_it_leaves_alone(run, module):
    upload(module_name=module, version=2, content="c2")
    first = begin(run, module, 1)
    for node in (NODE, "n2", "n3"):
        say(first, node)
        advance(first)
    newer = begin(run, module, 2, "--node", "n2")
    say(newer, "n2")
    answer = run("rollout", "rollback", first, "--yes")
    left = f"n2 by rollout {newer}"
    assert f"roll back {module} 1" in answer.stdout
    assert left in answer.stderr
    back = rollout(first).rolled_back_by
    status = run("rollout", "status", back).stdout
    assert f"rollback of rollout {first}" in status
    assert left in status
    assert f"rolled back by rollout {back}" in run("rollout", "status", first).stdout
    listed = run("rollout", "list", "--module", module).stdout.splitlines()
    assert any(back in line and "roll back" in line for line in listed)


LOG = ("# <greet> Greet requires redis-server 7.2", "# Module /m/greet.so initialization failed. Module not loaded.")
CAUSE = "2 nodes: load_failed: Greet requires redis-server 7.2"


@pytest.fixture
def refused_by_servers(module):
    """uid of a rollout that two servers refuse in the same words."""
    uid = start(module_name=module)
    for name in ("n1", "n2"):
        say(uid, name, Phase.FAILED, reason=Reason.LOAD_FAILED, message=MESSAGE, server_log=LOG)
    say(uid, "n3")
    advance(uid)
    return uid


@pytest.mark.parametrize("command", ["why", "watch", "status", "report"])
def test_what_servers_logged_is_shown_in_groups(run, refused_by_servers, command):
    assert CAUSE in run("rollout", command, refused_by_servers).stdout


def test_why_shows_the_lines(run, refused_by_servers):
    shown = run("rollout", "why", refused_by_servers).stdout
    assert all(f"n1: {line}" in " ".join(shown.split()) for line in LOG)
