"""A former master becomes the master again: one of several replicas, and no other. Nothing is restarted, and no write is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from rollout.agent.operations.runner import Runner
from rollout.agent.restart.held import Held
from rollout.messages import Action, Activation, Command, Phase, Reason, Replication, to_json
from tests.integration.agent.conftest import ROOT
from tests.integration.agent.shards import both
from tests.integration.agent.test_failover import (  # the first two are fixtures
    WAYS,
    Writers,
    in_turn,
    shard,  # noqa: F401
    way,  # noqa: F401
)
from tests.integration.agent.test_restart import has_changed_places, node, other, replica  # noqa: F401  # fixtures
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

#: An agent that kills itself after so many commands that change roles or priorities.
DIES = """
import json, os, signal, sys
from rollout.agent.operations.runner import Runner
from rollout.agent.server.session import Session
from rollout.agent.settings import settings_from
from rollout.messages import Command, from_json

CHANGES = {"CLIENT", "REPLICAOF", "FAILOVER", "CLUSTER FAILOVER", "CONFIG REWRITE", "CONFIG SET", "SENTINEL FAILOVER"}
done, queues = [], set()

def call(session, *words, former=Session.call):
    if words == ("MULTI",):
        queues.add(session)
    answer = former(session, *words)
    if session not in queues and {words[0], " ".join(words[:2])} & CHANGES and words[1:2] != ("SETNAME",):
        done.append(words)
        if len(done) == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
    return answer

Session.call = call
report = Runner(settings_from(os.environ)).execute(from_json(Command, json.load(sys.stdin)), report=lambda _: None)
print(report)
"""


def command(to: str, **changes: Any) -> Command:
    made: dict[str, Any] = {
        "rollout": "r9",
        "node": "n1",
        "module_name": "keeps",
        "version": 1,
        "action": Action.REMOVE,  # of a module that was removed: none is there
        "activation": Activation.LOAD,
        "generation": 9,
        "attempt": 1,
        "expires": time.time() + 60,
        "deadline_seconds": 60,
        "fails_back_to": to,
    }
    return Command(**(made | changes))


def allow_priorities(shard):  # noqa: F811
    for each in shard.machines:
        each.call("ACL", "SETUSER", "agent", "+config|set")


def run(shard, made):  # noqa: F811
    runner = Runner(shard.settings)
    runner.recover()
    report = runner.execute(made, report=lambda _: None)
    assert runner.node.maintenance.held.read() is None
    return report


def priorities(shard):  # noqa: F811
    return {each.call("CONFIG", "GET", "replica-priority")[1] for each in shard.machines}


@pytest.mark.parametrize("way", WAYS)
@both
def test_the_chosen_replica_becomes_the_master(shard, way):  # noqa: F811
    """The last one in order, which no other rule prefers."""
    a, b, c = shard.machines
    allow_priorities(shard)
    target = max((b, c), key=lambda each: each.run_id)  # Sentinel takes the first
    address = f"{shard.address}:{target.port}"
    run_ids = [each.run_id for each in shard.machines]
    with Writers(shard, way) as writers:
        report = run(shard, command(address))
        writers.wait_for_more()
    assert report.phase is Phase.SUCCEEDED, report
    assert report.restart.downtime_seconds is None
    done = report.restart.failover
    assert (done.way, done.former, done.new) == (way, f"{shard.address}:{a.port}", address)
    assert report.message.startswith(f"The master was {done.former} and is {done.new}; writes waited for")
    assert shard.new_master() is target
    assert writers.lost() == []
    assert [each.run_id for each in shard.machines] == run_ids
    assert priorities(shard) == {"100"}
    for each in shard.machines:  # the file of each has its role and its priority
        each.restart()
    assert shard.new_master() is target
    assert priorities(shard) == {"100"}


@pytest.mark.parametrize(
    ("binary", "way", "step"),
    in_turn(
        *(("sentinel", step) for step in range(1, 8)), *(("command", step) for step in range(1, 6)), ("cluster", 1)
    ),
)
def test_the_agent_is_killed(shard, way, step):  # noqa: F811
    """Directly after one of its changes. The next agent settles it, whatever the command does."""
    a, b, c = shard.machines
    allow_priorities(shard)
    target = max((b, c), key=lambda each: each.run_id)
    made = command(f"{shard.address}:{target.port}")
    with Writers(shard, way) as writers:
        words = [sys.executable, "-c", DIES, str(step)]
        died = subprocess.run(
            words, input=json.dumps(to_json(made)), text=True, env=os.environ | shard.environ, cwd=ROOT, check=False
        )
        assert died.returncode in (0, -signal.SIGKILL)
        report = run(shard, made)
        writers.wait_for_more()
    is_undone = (report.phase, report.reason) == (Phase.SKIPPED, Reason.FAILOVER_NOT_POSSIBLE)
    assert is_undone or report.phase is Phase.SUCCEEDED, report
    assert shard.new_master() is (a if is_undone else target)
    assert writers.lost() == []
    assert priorities(shard) == {"100"}
    shard.writes_at_once()
    for each in shard.machines:
        each.restart()
    assert shard.new_master() is (a if is_undone else target)
    assert priorities(shard) == {"100"}


def hangs(target):
    target.process.send_signal(signal.SIGSTOP)


def role_changed(target):
    return {"expects": Replication(role="replica", master=target.address)}


def no_replica(_):
    return {"to": "node-2"}


def priority_zero(target):
    target.call("CONFIG", "SET", "replica-priority", 0)


def no_rights(target):
    target.call("ACL", "SETUSER", "agent", "-config|set")


@pytest.mark.parametrize(
    ("binary", "way", "spoil", "reason", "words"),
    in_turn(
        ("command", hangs, Reason.FAILOVER_NOT_POSSIBLE, ""),
        ("command", role_changed, Reason.ROLE_CHANGED, ""),
        ("command", no_replica, Reason.FAILOVER_NOT_POSSIBLE, "has no replica node-2"),
        ("command", priority_zero, Reason.FAILOVER_NOT_POSSIBLE, "has replica-priority 0"),
        ("sentinel", priority_zero, Reason.FAILOVER_NOT_POSSIBLE, "has replica-priority 0"),
        ("sentinel", no_rights, Reason.FAILOVER_NOT_POSSIBLE, "let the agent's user call CONFIG SET"),
    ),
)
def test_it_waits(shard, spoil, reason, words):  # noqa: F811
    """Nothing has changed, and the operation is returned."""
    a, b, c = shard.machines
    allow_priorities(shard)
    target = max((b, c), key=lambda each: each.run_id)
    made = {"to": f"{shard.address}:{target.port}"} | (spoil(target) or {})
    report = run(shard, command(**made))
    target.process.send_signal(signal.SIGCONT)
    assert (report.phase, report.reason) == (Phase.SCHEDULED, reason), report
    assert words in report.message
    assert a.master_port() == 0
    shard.writes_at_once()


@both
def test_a_server_with_the_module_settles(node, built, replica):  # noqa: F811
    """As a replica. The commands of the settings do not run: nothing is restarted."""
    assert node.install(built("keeps", 1)).phase is Phase.SUCCEEDED
    run_id = node.server.run_id
    node.environ["MODFLEET_PRE_COMMAND"] = node.environ["MODFLEET_POST_COMMAND"] = '["false"]'
    node.restart_agent()
    made = node.command(built("keeps", 1), fails_back_to=replica.address, package=None, settle_seconds=0.5)
    report = node.run(made)
    assert report.phase is Phase.SUCCEEDED, report
    assert "MODFLEET" not in report.message
    assert Phase.SETTLING in node.phases()
    assert report.restart.failover.new == replica.address
    assert (node.server.run_id, node.server.loaded()) == (run_id, [("keeps", 1)])
    assert has_changed_places(node, replica)
    assert node.run(made) == report


@both
def test_it_is_interrupted_and_the_command_never_comes_again(node, built, replica):  # noqa: F811
    """The agent ends the maintenance, and changes nothing."""
    assert node.install(built("keeps", 1)).phase is Phase.SUCCEEDED
    lines = node.server.lines()
    held = Held(
        rollout="r1",
        module_name="keeps",
        version=1,
        generation=7,
        action=Action.INSTALL,
        run_id=node.server.run_id,
        way="none",
        unit="",
    )
    node.runner.node.maintenance.held.write(held)
    node.restart_agent()
    wait_for(lambda: node.runner.heartbeat(hello=False) and node.runner.node.maintenance.held.read() is None)
    assert (node.server.lines(), node.server.master_port()) == (lines, 0)
