"""Every command against the live API: its exit code, the shape of its --json."""

import csv
import json
import re

import pytest
from msgspec import to_builtins

from rollout.delivery.ingestion import record_heartbeats
from rollout.domain.strategy import Gate
from rollout.messages import Finding, FindingStatus, InstalledModule, Phase, Reason, Replica, ServerState, WouldStart
from rollout.models import Rollout
from rollout.process.advance import advance
from rollout.services.enrolment import create_join_token
from rollout.services.rollouts import pause_rollout
from tests import recorded_shards
from tests.hosts import Host
from tests.integration.cli.conftest import NODES
from tests.recorded_fleet import heartbeat_of, join, phases, rollout, say, start
from tests.recorded_shards import beat, master_of, replica_of

pytestmark = pytest.mark.slow


def answer(result):
    """Its one JSON document."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def begin(run, module, *words):
    """uid of a rollout that the command line has started."""
    return answer(run("rollout", "start", module, "1", "--json", *words))["uid"]


# --- Lists and single things ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["modules"], ["artifacts"], ["nodes"], ["users"], ["events"], ["rollout", "list"]])
def test_a_list_is_an_array_for_programs_and_a_table_for_people(run, module, words):
    start(module_name=module)
    assert isinstance(answer(run(*words, "--json")), list)
    shown = run(*words, COLUMNS="40")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "…" not in shown.stdout
    assert "\x1b" not in shown.stdout


def test_options_of_the_connection_count_wherever_they_stand(run, control):
    for words in (["--json", "nodes", "list"], ["nodes", "--json", "list"], ["nodes", "list", "--json"]):
        assert {each["name"] for each in answer(run(*words))} >= set(NODES)
    gone = "http://127.0.0.1:1"
    assert run("--url", gone, "nodes", "--url", control.url, "--json", MODFLEET_URL=gone).exit_code == 0
    assert run("--url", control.url, "nodes", "--url", gone).exit_code == 4


def test_pages_are_followed(run, monkeypatch):
    monkeypatch.setattr("modfleet.client.PAGE", 2)
    assert {each["name"] for each in answer(run("nodes", "--json"))} >= set(NODES)


def test_degraded_nodes_come_first(run):
    join("zz-away")
    state = ServerState(problem="server_unreachable", message="It is away.", replicas=(Replica(address="10.0.0.7:1"),))
    check = Finding(check="noexec", status=FindingStatus.FAIL, message="It is noexec.", fix="Mount it with exec.")
    told = {"facts": to_builtins(state), "doctor": to_builtins([check]), "examined_seconds_ago": 185.0}
    record_heartbeats([heartbeat_of("zz-away") | told])
    listed = run("nodes", COLUMNS="300").stdout.splitlines()
    assert listed[1].split()[:2] == ["zz-away", "degraded"]
    assert "server_unreachable: It is away." in listed[1]
    shown = run("nodes", "show", "zz-away", COLUMNS="200").stdout
    for words in (
        "\nServer\n",
        "\nReplication\n",
        "10.0.0.7:1",
        "unknown",
        "\nDoctor, 3 min ago\n",
        "Mount it with exec.",
    ):
        assert words in shown
    assert "Doctor" not in run("nodes", "show", NODES[0]).stdout
    run("nodes", "decommission", "zz-away", "--yes")


def test_a_server_that_would_not_start_again_comes_first(run):
    join("zz-broken")
    state = ServerState(
        would_start=WouldStart.NO, would_start_reason="server.conf:9 loads /x.so, which does not exist."
    )
    record_heartbeats([heartbeat_of("zz-broken") | {"facts": to_builtins(state)}])
    listed = run("nodes", COLUMNS="300").stdout.splitlines()
    assert listed[1].split()[:2] == ["zz-broken", "degraded"]
    assert "server.conf:9 loads /x.so" in listed[1]
    run("nodes", "decommission", "zz-broken", "--yes")


def test_the_list_tells_what_is_loaded_from_what_is_only_there(run):
    had = [
        InstalledModule(module_name="json", version=each, content_sha256=str(each) * 64, loaded=each == 2)
        for each in (1, 2)
    ]
    join("both", modules=had)
    (line,) = [each for each in run("nodes", COLUMNS="300").stdout.splitlines() if each.startswith("both ")]
    assert "json 1 files drifted, json 2 load drifted" in line
    run("nodes", "decommission", "both", "--yes")


def test_a_node(run):
    join("other")
    assert answer(run("nodes", "show", "other", "--json"))["name"] == "other"
    assert "linux/x86_64" in run("nodes", "show", "other").stdout
    assert run("nodes", "drain", "other").stdout == "other is draining\n"
    assert [each["name"] for each in answer(run("nodes", "list", "--phase", "draining", "--json"))] == ["other"]
    assert answer(run("nodes", "activate", "other", "--json"))["phase"] == "online"
    assert answer(run("nodes", "label", "other", "zone=a", "--json"))["labels"] == {"zone": "a"}
    assert [each["name"] for each in answer(run("nodes", "list", "--label", "zone=a", "--json"))] == ["other"]
    assert run("nodes", "label", "other", "zone=b").stdout == "the labels of other are zone=b\n"
    assert run("nodes", "label", "other", "--clear").stdout == "other has no labels\n"
    assert answer(run("nodes", "label", "other", "--clear", "--json"))["labels"] == {}
    assert answer(run("nodes", "forget", "other", "--json", "--yes"))["phase"] == "offline"
    assert answer(run("nodes", "decommission", "other", "--json"))["phase"] == "decommissioned"


def test_a_shard(run):
    join("top", "below")
    recorded_shards.say(beat("top", master_of("a:2", "a:9", addresses=("a:1",))), beat("below", replica_of("a:1")))
    assert run("nodes", "set", "below", "--address", "A:2").stdout == "the address of below is a:2, its shard is top\n"
    lines = ["top: master", "├── below: replica", "└── a:9: unmanaged replica"]
    assert "\n".join(lines) in run("nodes", "--tree").stdout
    ignored = run("nodes", "ignore-replica", "a:9", "--reason", "A backup")
    assert ignored.stdout == "the replica a:9 of top is ignored: A backup\n"
    again = run("nodes", "ignore-replica", "a:9", "--reason", "Another reason")
    assert again.stdout == ignored.stdout
    assert "run `modfleet nodes unignore-replica a:9` first" in again.stderr
    shown = run("nodes", "--tree").stdout
    assert "└── a:9: ignored replica" in shown
    assert re.search(r"a:9 +A backup +alice +20\S+Z +top\n", shown)
    (replica,) = answer(run("nodes", "--tree", "--json"))["ignored_replicas"]
    assert (replica["address"], replica["masters"]) == ("a:9", ["top"])
    assert {each["name"] for each in answer(run("nodes", "list", "--shard", "top", "--json"))} == {"top", "below"}
    assert run("nodes", "list", "--shard", "nope").stdout.startswith("No node matches.")
    assert answer(run("nodes", "list", "--shard", "nope", "--json")) == []
    assert run("nodes", "unignore-replica", "a:9").stdout == "the replica a:9 is not ignored\n"
    assert "a:9: unmanaged replica" in run("nodes", "--tree").stdout
    assert run("nodes", "set", "below", "--no-address").stdout.startswith(
        "the address of below is as the node reports it"
    )
    for name in ("top", "below"):
        run("nodes", "decommission", name, "--yes")
    elsewhere = run("nodes", "ignore-replica", "a:9", "--reason", "A backup").stdout
    assert elsewhere == "the replica a:9 is ignored (no node has it now): A backup\n"
    run("nodes", "unignore-replica", "a:9")


def test_a_node_is_added(run):
    shown = run("nodes", "add", "web-1", "--label", "zone=a", "--expires", "30m", "--observe")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("modfleet agent install --control http")
    assert shown.stdout.endswith(" --name web-1 --observe\n")
    assert shown.stderr.startswith("Run this on the host of web-1 as root, until 20")
    assert "Replace the URL after --server" in shown.stderr
    listed = answer(run("nodes", "tokens", "--json"))[0]
    assert (listed["node"], listed["labels"], listed["state"]) == ("web-1", {"zone": "a"}, "open")
    assert shown.stdout.split("--token mfj1.")[1].startswith(listed["id"])
    assert "web-1" in run("nodes", "tokens").stdout
    assert run("nodes", "revoke-token", listed["id"]).stdout == f"the token {listed['id']} is revoked\n"


def test_a_group_of_nodes_is_added(run):
    shown = run("nodes", "add", "--group", "cache-*", "--uses", "20")
    assert "--name" not in shown.stdout
    assert shown.stderr.splitlines()[-1] == "Then accept each node with the command that its installation prints."
    created = answer(run("nodes", "add", "--group", "cache-*", "--uses", "3", "--auto-accept", "--json"))
    assert (created["uses"], created["auto_accept"]) == (3, True)
    assert created["token"] in created["command"]


def test_the_identity_of_a_node(run):
    token = create_join_token(pattern="new-*", labels={}, expires_in_seconds=60)
    Host(name="new-1").join(token)
    assert run("nodes", "list", "--phase", "pending").stdout.splitlines()[1].startswith("new-1 ")
    assert "The node has another key." in run("nodes", "accept", "new-1", "--key", "0" * 16).stderr
    assert run("nodes", "accept", "new-1").stdout == "new-1 is accepted\n"
    assert run("nodes", "rekey", "new-1").stdout == "new-1 is asked to replace its key\n"
    assert run("nodes", "revoke", "new-1").stdout == "new-1 is revoked\n"
    assert answer(run("nodes", "show", "new-1", "--json"))["identity"] == "revoked"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["nodes", "add"], 2, "Give the name of the node, or --group with a pattern of names."),
        (["nodes", "add", "a", "--group", "a*"], 2, "Give the name of the node, or --group"),
        (["nodes", "add", "a", "--uses", "2"], 2, "--uses and --auto-accept need --group."),
        (["nodes", "add", "a", "--expires", "soon"], 2, "soon is not a time. Write it as 30m, 1h or 7d."),
        (["nodes", "add", "a", "--expires", "1s"], 2, "1s is not between 1m and 366d."),
        (["nodes", "add", "a", "--expires", "367d"], 2, "367d is not between 1m and 366d."),
        (["nodes", "add", "a b"], 2, "node: Must be 1 to 128 ASCII letters, digits, - _ and . only."),
        (["nodes", "add", "--group", "cache"], 2, "pattern: must have a *, a letter or digit, and at most 128"),
        (["nodes", "revoke-token", "x"], 1, "There is no join token with this id. `modfleet nodes tokens` lists"),
        (["nodes", "rekey", "n1"], 1, "`modfleet nodes add NODE` creates a token to join with."),
        (
            ["nodes", "show", "nope"],
            1,
            "The fleet has no node of this name. `modfleet nodes` lists all nodes.",
        ),
        (["nodes", "--tree", "list"], 2, "--tree goes without a command: modfleet nodes --tree"),
        (["nodes", "set", "n1"], 2, "Give --address HOST:PORT, or --no-address to remove the address."),
        (["nodes", "set", "n1", "--address", "redis"], 2, "'redis' is not an address: write HOST:PORT, such as"),
        (["nodes", "ignore-replica", "redis", "--reason", "x"], 2, "'redis' is not an address: write HOST:PORT"),
        (["nodes", "unignore-replica", "a:1"], 1, "`modfleet nodes --tree` lists all ignored replicas."),
        (["nodes", "label", "n1"], 2, "Give the labels as NAME=VALUE, or --clear to remove them."),
        (["nodes", "label", "n1", "zone"], 2, "zone is not a label. Write it as NAME=VALUE."),
        (["events", "--since", "soon"], 2, "soon is not a time. Write it as 2026-11-23T16:20:00Z."),
        (["events", "--request", "nope"], 1, "No event has the correlation_id nope. `modfleet events` shows"),
        (["rollout", "start", "greet", "1", "--node", "n1", "--role", "master"], 2, "--node cannot be combined"),
        (["rollout", "start", "nope", "1"], 1, "`modfleet push FILE.zip`"),
        (["rollout", "start", "greet", "1", "--canary", "few"], 2, "strategy.canary: Must be an integer"),
        (["rollout", "start", "greet", "1", "--soak", "inf"], 2, "The request cannot be written as JSON: Out of range"),
        (["rollout", "approve", "nope"], 2, "Give a reason, for the log: --remark TEXT."),
        (["rollout", "status", "../nodes"], 2, "'../nodes' is not a valid name."),
        (["rollout", "status", ""], 2, "'' is not a valid name."),
        (["nodes", "drain", "n1?x=1"], 1, "The fleet has no node of this name."),
        (["nodes", "show", "\udcff"], 1, "The fleet has no node of this name."),
        (["nodes", "list", "--label", "zone=\udcff"], 2, "A value is not valid UTF-8."),
        (["freeze", "\udcff"], 2, "A value is not valid UTF-8."),
        (["modules", "show", "nope", "1"], 1, "There is no module nope 1. `modfleet modules` lists"),
        (["artifacts", "show", "nope", "1"], 1, "`modfleet push FILE.zip` uploads it"),
        (["users", "show", "nobody"], 1, "There is no user nobody. `modfleet users` lists"),
        (["users", "set", "bob"], 2, "Nothing to change: give --name, --email, --role or --status."),
        (["users", "add", "dave", "--email", "d@example.com"], 2, "No new password: give --new-password"),
    ],
)
def test_an_error_is_one_sentence_that_says_what_to_do(run, words, code, sentence):
    shown = run(*words)
    assert (shown.exit_code, shown.stdout, shown.stderr.count("\n")) == (code, "", 1)
    assert sentence in shown.stderr


def test_events_are_filtered_and_the_newest_come_last(run, module, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    uid = start(module_name=module)
    found = answer(run("events", "--stream", f"rollout:{uid}", "--json"))
    assert {each["stream"] for each in found} == {f"rollout:{uid}"}
    assert [each["position"] for each in found] == sorted(each["position"] for each in found)
    (one,) = answer(run("events", "--type", "rollout.started.*", "--limit", "1", "--json"))
    assert one["stream"] == f"rollout:{uid}"
    assert answer(run("events", "--actor", "nobody", "--json")) == []
    correlation_id = found[0]["correlation_id"]
    assert found[0] in answer(run("events", "--request", correlation_id, "--json"))
    assert correlation_id in run("events", "--request", correlation_id).stdout
    assert answer(run("events", "--until", "2020-01-01", "--json")) == []
    assert answer(run("events", "--since", "2020-01-01", "--limit", "0", "--json"))[0]["position"] == 1


def test_a_frozen_fleet_and_a_thawed_one(run):
    assert run("freeze").stdout == "not frozen\n"
    assert answer(run("freeze", "holidays", "--json"))["reason"] == "holidays"
    assert run("freeze").stdout.startswith("frozen by the user alice since ")
    assert answer(run("thaw", "--json"))["frozen"] is False


# --- Rollouts ---------------------------------------------------------------------------------------------------------


def test_a_rollout_is_started_as_it_was_planned(run, module):
    words = [module, "1", "--node", "n1", "--node", "n2", "--canary", "50%", "--max-parallel", "1"]
    plan = answer(run("rollout", "plan", *words, "--json"))
    assert [each["total"] for each in plan["waves"]] == [1, 1]
    assert plan["plan_hash"] in run("rollout", "plan", *words).stdout
    changed = run("rollout", "start", module, "1", "--plan-hash", plan["plan_hash"])
    assert (changed.exit_code, "Run `modfleet rollout plan` again" in changed.stderr) == (1, True)
    made = answer(run("rollout", "start", *words, "--plan-hash", plan["plan_hash"], "--json"))
    assert (made["strategy"]["canary"], set(phases(made["uid"]))) == ("50%", {"n1", "n2"})
    assert made["origin"] == "cli"


def test_a_module_that_is_used_is_removed_only_if_a_person_says_so(run, module):
    words = [module, "1", "--node", "n1", "--action", "remove"]
    made = answer(run("rollout", "start", *words, "--even-if-used", "--json"))
    assert Rollout.objects.get(uid=made["uid"]).even_if_used
    run("rollout", "abort", made["uid"])
    made = answer(run("rollout", "start", *words, "--supersede", "--json"))
    assert not Rollout.objects.get(uid=made["uid"]).even_if_used


def test_the_strategy_comes_from_a_file_and_options_win(run, module, tmp_path):
    as_yaml, as_json = tmp_path / "careful.yaml", tmp_path / "careful.json"
    as_yaml.write_text("canary: 10%\nsoak_seconds: 5\nstart_at: 2099-01-01T00:00:00Z\nretries: {limit: 4}\n")
    as_json.write_text('{"canary": 2}')
    planned = answer(run("rollout", "plan", module, "1", "--strategy", str(as_yaml), "--soak", "7", "--json"))
    strategy = planned["strategy"]
    assert (strategy["canary"], strategy["soak_seconds"], strategy["retries"]["limit"]) == ("10%", 7, 4)
    planned = answer(run("rollout", "plan", module, "1", "--strategy", str(as_json), "--retries", "1", "--json"))
    assert (planned["strategy"]["canary"], planned["strategy"]["retries"]["limit"]) == (2, 1)


def test_more_failed_calls_stop_the_node(run, module, tmp_path):
    planned = answer(run("rollout", "plan", module, "1", "--failed-calls", "stop", "--json"))
    assert planned["strategy"]["health"] == {"failed_calls": "stop"}
    (tmp_path / "careful.yaml").write_text("health: {failed_calls: stop}")
    words = ["rollout", "plan", module, "1", "--strategy", str(tmp_path / "careful.yaml")]
    assert answer(run(*words, "--json"))["strategy"]["health"] == {"failed_calls": "stop"}
    assert answer(run(*words, "--failed-calls", "warn", "--json"))["strategy"]["health"] == {"failed_calls": "warn"}


def test_retries_of_a_strategy_that_are_no_object(run, module, tmp_path):
    (tmp_path / "bad.yaml").write_text("retries: 3")
    shown = run("rollout", "plan", module, "1", "--strategy", str(tmp_path / "bad.yaml"), "--retries", "1")
    assert (shown.exit_code, "strategy.retries" in shown.stderr) == (2, True)


@pytest.mark.parametrize("content", ["canary: [", "- 1\n"])
def test_a_strategy_that_cannot_be_read(run, tmp_path, content):
    (tmp_path / "bad.yaml").write_text(content)
    shown = run("rollout", "plan", "greet", "1", "--strategy", str(tmp_path / "bad.yaml"))
    assert (shown.exit_code, shown.stderr.count("\n"), "bad.yaml" in shown.stderr) == (2, 1, True)


def test_nodes_are_selected(run, module):
    planned = answer(run("rollout", "plan", module, "1", "--name", "n[12]", "--platform", "linux/x86_64", "--json"))
    assert sum(each["total"] for each in planned["waves"]) in {0, 2}


def test_start_and_watch(run, module):
    shown = run("rollout", "start", module, "1", "--watch", "--timeout", "0.1")
    assert (shown.exit_code, f"install {module} 1" in shown.stdout) == (5, True)


def test_verbs_of_a_rollout(run, module):
    uid = begin(run, module, "--max-failures", "100%", "--retries", "0", "--canary", "0")
    assert answer(run("rollout", "pause", uid, "--json"))["phase"] == "paused"
    assert " is running, 0 of 3 nodes done" in run("rollout", "resume", uid).stdout
    again = run("rollout", "promote", uid)
    assert (again.exit_code, f"`modfleet rollout status {uid}`" in again.stderr) == (1, True)
    assert answer(run("rollout", "cancel", uid, "n3", "--force", "--json"))["node"] == "n3"
    advance(uid)
    say(uid, "n1", Phase.FAILED, reason=Reason.LOAD_FAILED, message="no symbol")
    advance(uid)
    status = run("rollout", "status", uid).stdout
    assert "load_failed" in status
    assert "no symbol" in status
    assert answer(run("rollout", "status", uid, "--json"))["progress"]["failed"] == 1
    assert answer(run("rollout", "retry", uid, "--json"))["progress"]["failed"] == 0
    assert answer(run("rollout", "rollback", uid, "--json"))["phase"] in {"rolling_back", "rolled_back"}
    assert len(answer(run("rollout", "nodes", uid, "--json"))) == 3
    assert run("rollout", "nodes", uid).stdout.startswith("NODE")


def test_promote_opens_the_gate(run, module):
    uid = start(module_name=module, careful={"canary": 1, "gate": Gate.MANUAL})
    say(uid, "n1")
    advance(uid)
    assert run("rollout", "promote", uid, "--wave", "0").exit_code == 0
    assert run("rollout", "watch", uid, "--timeout", "0").exit_code == 5


def test_a_verb_that_starts_another_rollout_says_how_to_watch_it(run, module):
    uid = begin(run, module, "--node", "n1", "--max-failures", "100%", "--retries", "0")
    advance(uid)
    say(uid, "n1", Phase.FAILED, reason=Reason.LOAD_FAILED)
    shown = run("rollout", "retry", uid)
    other = answer(run("rollout", "list", "--limit", "1", "--json"))[0]["uid"]
    assert uid != other
    assert shown.stderr == f"Watch it with `modfleet rollout watch {other}`.\n"


def test_a_retry_of_a_paused_rollout_says_how_it_continues(run, module):
    uid = begin(run, module, "--retries", "0", "--canary", "1")
    advance(uid)
    say(uid, "n1", Phase.FAILED, reason=Reason.LOAD_FAILED)
    advance(uid)
    shown = run("rollout", "retry", uid)
    assert " is paused" in shown.stdout
    assert f"Run `modfleet rollout resume {uid}`.\n" in shown.stderr
    why = answer(run("rollout", "why", uid, "--json"))
    assert f"n1 will be tried again only after `modfleet rollout resume {uid}`" in why["waits_for"][0]["text"]
    assert run("rollout", "resume", uid).stderr == ""


def test_the_uid_is_whole_on_a_terminal(terminal, module):
    uid = start(module_name=module)
    listing = terminal("rollout", "list", "--module", module)
    assert listing.end() == 0
    assert uid in listing.text


def test_a_second_person_approves_or_rejects(run, module):
    uid = begin(run, module, "--approval")
    alone = run("rollout", "approve", uid, "--remark", "fine")
    assert (alone.exit_code, alone.stderr.count("\n")) == (1, 1)
    assert answer(run("rollout", "reject", uid, "--remark", "not today", "--json"))["phase"] == "rejected"
    assert rollout(uid).phase == "rejected"


def test_abort(run, module):
    uid = begin(run, module)
    assert answer(run("rollout", "abort", uid, "--json"))["phase"] in {"aborting", "aborted"}


def test_why(run, module):
    uid = start(module_name=module)
    pause_rollout(uid)
    assert answer(run("rollout", "why", uid, "--json"))["rule"]["id"] == "manual"
    shown = run("rollout", "why", uid).stdout
    assert "Paused since" in shown
    assert "waits for: " in shown
    assert answer(run("rollout", "why", uid, "n1", "--json"))["node"] == "n1"


def test_a_report_is_a_file_for_a_ticket(run, module):
    uid = start(module_name=module)
    assert answer(run("rollout", "report", uid, "--json"))["uid"] == uid
    kinds = [row["record"] for row in csv.DictReader(run("rollout", "report", uid).stdout.splitlines())]
    assert kinds.count("node") == len(NODES)


def test_a_list_of_rollouts_is_filtered(run, module):
    uid = start(module_name=module)
    assert [each["uid"] for each in answer(run("rollout", "list", "--module", module, "--json"))] == [uid]
    assert answer(run("rollout", "list", "--module", module, "--phase", "failed", "--json")) == []
    assert len(answer(run("rollout", "list", "--limit", "1", "--json"))) == 1


def test_a_viewer_may_not(run, module):
    shown = run("rollout", "start", module, "1", MODFLEET_USER="bob")
    assert (shown.exit_code, "Ask an admin" in shown.stderr) == (1, True)


def test_on_a_terminal_the_plan_is_shown_and_a_person_decides(terminal, module):
    asking = terminal("rollout", "start", module, "1")
    asking.wait_until(lambda text: "Start this rollout? [y/N]:" in text)
    assert "plan_hash" in asking.text
    asking.type("n\n")
    assert asking.end() == 1
    assert "Nothing was changed." in asking.text


# --- Users ------------------------------------------------------------------------------------------------------------


def test_a_user(run, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("correct horse 2\n")
    added = run(
        *["users", "add", "erin", "--email", "erin@example.com", "--role", "cluster_viewer"],
        *["--new-password-file", str(secret), "--json"],
    )
    assert answer(added)["role"] == "cluster_viewer"
    assert answer(run("users", "show", "erin", "--json"))["email"] == "erin@example.com"
    assert answer(run("users", "set", "erin", "--status", "locked", "--json"))["status"] == "locked"
    assert run("users", "passwd", "erin", "--new-password-file", "-", stdin="correct horse 3\n").exit_code == 0
    assert answer(run("users", "delete", "erin", "--json")) == {}
    assert "erin" not in run("users").stdout
