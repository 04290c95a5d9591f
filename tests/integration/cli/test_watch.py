"""`modfleet rollout watch`: what it shows, what it survives, and with which exit code it ends."""

import json
import os
import signal
import subprocess
import sys

import pytest

from rollout.domain.strategy import Gate
from rollout.messages import Phase, Reason
from rollout.process.advance import advance
from rollout.process.offline_nodes import declare_silent_nodes_offline
from rollout.services.rollouts import pause_rollout, resume_rollout
from tests import recorded_shards
from tests.integration.cli.conftest import NODES
from tests.recorded_fleet import installed, join, say, silence, start
from tests.recorded_shards import beat, master_of, replica_of

pytestmark = pytest.mark.slow

STEPWISE = {"canary": 1, "max_failures": "100%"}


def fail(uid, name):
    say(uid, name, Phase.FAILED, reason=Reason.LOAD_FAILED, message="no symbol \x1b[31mfoo")


def ended(module, *, failed=()):
    """uid of a rollout that all nodes have answered."""
    uid = start(module_name=module)
    for name in NODES:
        fail(uid, name) if name in failed else say(uid, name)
    advance(uid)
    return uid


def removal(run, module, *words):
    """uid of a removal that has come as far as it can without answers of nodes."""
    started = run("rollout", "start", module, "1", "--action", "remove", *words, "--json")
    uid = json.loads(started.stdout)["uid"]
    advance(uid)
    return uid


# --- How it ends ------------------------------------------------------------------------------------------------------


def test_0_for_one_that_has_succeeded(run, module):
    shown = run("rollout", "watch", ended(module))
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "succeeded after" in shown.stdout


def test_1_for_one_that_has_failed_with_the_nodes_reasons_and_the_next_step(run, module):
    uid = ended(module, failed=["n2"])
    shown = run("rollout", "watch", uid)
    assert shown.exit_code == 1
    assert "n2: failed: load_failed: no symbol  [31mfoo\n" in shown.stdout
    assert shown.stderr == (
        f"`modfleet rollout why {uid}` shows the reason; `modfleet rollout retry {uid}` tries the failed nodes again.\n"
    )


def test_1_if_every_node_was_skipped_and_none_has_what_was_asked_for(run, module):
    """The master has the module, so its replica must not lose it first."""
    join("top", "below")
    has = [installed(module_name=module)]
    recorded_shards.say(
        beat("top", master_of("a:2", addresses=("a:1",)), modules=has),
        beat("below", replica_of("a:1", addresses=("a:2",)), modules=has),
    )
    try:
        shown = run("rollout", "watch", removal(run, module, "--node", "below"), "--timeout", "10")
        assert (shown.exit_code, "succeeded" in shown.stdout) == (1, True)
        assert (
            "Nothing was changed: the only node was skipped. below: master_has_module: below is skipped" in shown.stderr
        )
        assert "Include the master in the rollout" in shown.stderr
    finally:
        for name in ("top", "below"):
            run("nodes", "decommission", name, "--yes")


def test_0_if_every_node_has_what_was_asked_for(run, module):
    uid = removal(run, module)
    for name in NODES:
        say(uid, name, Phase.SKIPPED, reason=Reason.NOT_INSTALLED)
    advance(uid)
    shown = run("rollout", "watch", uid, "--timeout", "10")
    assert (shown.exit_code, "skipped" in shown.stderr) == (0, True)


@pytest.mark.parametrize("words", [["rollout", "watch"], ["rollout", "watch", "u", "--timeout", "soon"], ["no"]])
def test_2_for_a_command_that_cannot_be_read(run, words):
    shown = run(*words)
    assert (shown.exit_code, shown.stdout, shown.stderr.count("\n")) == (2, "", 1)
    assert shown.stderr.rstrip().endswith("--help`.")


def test_3_for_one_that_is_paused(run, module):
    uid = start(module_name=module)
    pause_rollout(uid)
    shown = run("rollout", "watch", uid)
    assert (shown.exit_code, shown.stderr.startswith("The rollout is paused: ")) == (3, True)


def test_3_for_one_that_waits_at_a_gate(run, module):
    uid = start(module_name=module, careful={**STEPWISE, "gate": Gate.MANUAL})
    say(uid, "n1")
    advance(uid)
    shown = run("rollout", "watch", uid)
    assert (shown.exit_code, "gate after wave 0" in shown.stderr) == (3, True)


def test_3_for_one_that_waits_for_approval(run, module):
    uid = start(module_name=module, careful={**STEPWISE, "approval": True})
    shown = run("rollout", "watch", uid)
    assert (shown.exit_code, "modfleet rollout approve" in shown.stderr) == (3, True)


def test_4_where_nobody_answers(run):
    shown = run("rollout", "watch", "u", MODFLEET_URL="http://127.0.0.1:1")
    assert (shown.exit_code, shown.stdout) == (4, "")
    assert shown.stderr.startswith("http://127.0.0.1:1 cannot be reached")


def test_5_when_the_time_is_over_and_it_goes_on(run, module):
    shown = run("rollout", "watch", start(module_name=module), "--timeout", "0.2")
    assert (shown.exit_code, "the rollout continues. `modfleet rollout why" in shown.stderr) == (5, True)


def test_130_for_ctrl_c(terminal, module):
    watching = terminal("rollout", "watch", start(module_name=module))
    watching.wait_until(lambda text: "wave 0" in text)
    os.killpg(watching.process.pid, signal.SIGINT)
    assert watching.end() == 130
    assert "The rollout continues" in watching.text
    assert "Traceback" not in watching.text


def test_one_that_is_not_there_is_refused(run):
    shown = run("rollout", "watch", "nope")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "`modfleet rollout list` lists all rollouts." in shown.stderr


# --- What it shows ----------------------------------------------------------------------------------------------------


def test_each_change_is_a_json_document_in_a_line_and_the_last_is_the_end(environ, module):
    uid = start(module_name=module, careful=STEPWISE)
    command = [sys.executable, "-m", "modfleet", "rollout", "watch", uid, "--json"]
    with subprocess.Popen(command, env=os.environ | environ, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        documents = [json.loads(watching.stdout.readline())]
        for name in NODES:
            say(uid, name)
            advance(uid)
            documents.append(json.loads(watching.stdout.readline()))
        documents += [json.loads(line) for line in watching.stdout]
    assert watching.returncode == 0
    assert [each["uid"] for each in documents] == [uid] * len(documents)
    assert [documents[0]["phase"], documents[-1]["phase"]] == ["running", "succeeded"]
    assert len({json.dumps(each) for each in documents}) == len(documents)


def test_nothing_but_plain_lines_where_there_is_no_terminal(run, module):
    shown = run("rollout", "watch", ended(module, failed=["n1"]), FORCE_COLOR="")
    assert "\x1b" not in shown.stdout
    assert f"install {module} 1" in shown.stdout
    assert "completed_with_failures: 3 of 3 nodes done (100 %), 1 failed" in shown.stdout


def test_what_it_waits_for_in_a_line(run, module):
    """One node is offline, the others have succeeded."""
    uid = start(module_name=module, careful=STEPWISE | {"canary": 0, "offline": "wait"}, released=False)
    silence("n3")
    declare_silent_nodes_offline()
    advance(uid)
    for name in ("n1", "n2"):
        say(uid, name)
    advance(uid)
    line = "waits for n3 to come back online"
    for command in ("watch", "status"):
        shown = run("rollout", command, uid, *(["--timeout", "3"] if command == "watch" else []))
        assert [each for each in shown.stdout.splitlines() if each.startswith(line)]
    join("n3")


def test_a_server_that_hangs_is_shown(run, module):
    uid = start(module_name=module, careful=STEPWISE)
    said = "The server has not answered for 10 s. If it hangs, only SIGKILL ends it."
    say(uid, "n1", Phase.LOADING, reason=Reason.SERVER_HANGS, message=said)
    for command in ("watch", "status"):
        assert f"n1: {said}" in run("rollout", command, uid, *(["--timeout", "3"] if command == "watch" else [])).stdout


def test_bars_per_wave_and_the_failing_nodes_in_a_terminal(terminal, module):
    uid = start(module_name=module, careful=STEPWISE)
    watching = terminal("rollout", "watch", uid)
    watching.wait_until(lambda text: "0/1 running" in text and "0/2 pending" in text)
    fail(uid, "n1")
    advance(uid)
    watching.wait_until(lambda text: "load_failed" in text and "1/1" in text)
    assert "no symbol  [31mfoo" in watching.text
    assert "━" in watching.text
    for name in ("n2", "n3"):
        say(uid, name)
    advance(uid)
    assert watching.end() == 1
    assert "3/3 completed_with_failures" in watching.text


def test_it_goes_on_until_the_end_if_it_is_told_so(terminal, module):
    uid = start(module_name=module)
    pause_rollout(uid)
    watching = terminal("rollout", "watch", uid, "--until-the-end")
    watching.wait_until(lambda text: "paused" in text)
    resume_rollout(uid)
    for name in NODES:
        say(uid, name)
    advance(uid)
    assert watching.end() == 0


def test_no_color(terminal, module):
    watching = terminal("rollout", "watch", ended(module), NO_COLOR="1")
    assert watching.end() == 0
    assert b"\x1b[32m" not in watching.seen


# --- What it survives -------------------------------------------------------------------------------------------------


def test_a_control_plane_that_goes_away_and_comes_back_unless_the_time_is_over_before(terminal, module, control):
    uid = start(module_name=module)
    patient, impatient = terminal("rollout", "watch", uid), terminal("rollout", "watch", uid, "--timeout", "4")
    for each in (patient, impatient):
        each.wait_until(lambda text: "0/3" in text)
    with control.away():
        patient.wait_until(lambda text: "connection lost" in text)
        assert impatient.end() == 4
        for name in NODES:
            say(uid, name)
        advance(uid)
    assert patient.end() == 0
    assert "connection lost" not in patient.text
    assert "3/3 succeeded" in patient.text
    assert "cannot be reached" in impatient.text
