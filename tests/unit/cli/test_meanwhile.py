"""What a rollout has done to a node, as a change of a proof."""

from typing import Any

import pytest

from modfleet.client import ROLLOUTS
from modfleet.commands.meanwhile import Rollouts, change_of_node
from modfleet.proof.history import Way

ROLLOUT = {"rollback_of": None}
NODE = {
    "action": "install",
    "version": 2,
    "way": "load",
    "fails_back_to": None,
    "released_at": "2026-11-28T02:24:54Z",
    "finished_at": "2026-11-28T02:24:55Z",
}


def attempt(phase="succeeded", *, version=2, rollback=False, action="install", restart=None, released_at="now"):
    return {
        "phase": phase,
        "version": version,
        "rollback": rollback,
        "action": action,
        "restart": restart,
        "released_at": released_at,
    }


def changed(*outcomes, before="1", now="1", rollout=ROLLOUT, **node):
    found = change_of_node({**NODE, "outcomes": list(outcomes), **node}, rollout, before=before, now=now)
    return found.action, found.after, found.is_undone


def test_it_works():
    found = change_of_node({**NODE, "outcomes": [attempt()]}, ROLLOUT, before="1", now="2")
    assert (found.action, found.before, found.after) == ("upgrade", "1", "2")
    assert (found.way, found.is_undone) == (Way.LOAD, False)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (changed(attempt(), before=""), ("install", "2", False)),
        (changed(attempt(action="remove")), ("remove", "", False)),
        (changed(attempt("failed"), attempt()), ("upgrade", "2", False)),
        (changed(attempt("failed")), ("failed upgrade", "2", True)),
        (changed(attempt(), attempt("rolled_back", version=1, rollback=True)), ("undone upgrade", "2", True)),
        (changed(attempt("rolled_back", rollback=True), before="2", now="1"), ("rollback", "1", False)),
        (changed(attempt("timed_out"), now="1"), ("unanswered upgrade", "2", True)),
        (changed(attempt("timed_out"), now="2"), ("unanswered upgrade", "2", False)),
        (changed(finished_at=None), ("upgrade", "2", False)),
        (changed(attempt("failed", released_at=None), attempt()), ("upgrade", "2", False)),
        (changed(attempt(version=1), rollout={"rollback_of": "x"}, before="2"), ("rollback", "1", False)),
        (changed(attempt(), fails_back_to="n1"), ("failback", "", False)),
    ],
)
def test_other_ends(change, expected):
    assert change == expected


@pytest.mark.parametrize(
    "node", [{"way": "restart"}, {"outcomes": [attempt(restart={}), attempt("failed", restart={"at": 1})]}]
)
def test_a_restart(node):
    assert change_of_node({**NODE, "outcomes": [attempt()], **node}, ROLLOUT, before="1", now="2").way is Way.RESTART


class ControlPlane:
    """Answers as the API does: rollouts over one node."""

    def __init__(self, *rollouts, run_id="r1"):
        self.rollouts = {each["uid"]: each for each in rollouts}
        self.node = {"server_state": {"run_id": run_id}}

    def every(self, path, **_):
        return list(self.rollouts.values()) if path == ROLLOUTS else [{**NODE, "node": "n1", "outcomes": []}]

    def get(self, path):
        return self.rollouts[path.rpartition("/")[2]] if path.startswith(ROLLOUTS) else self.node


def rollout(phase):
    return {"uid": "u", "phase": phase, "progress": {"queued": 0, "running": 0}}


def seen(control: Any, uid=None, *more):
    """What the first look shows, and what must end first. `more`: rollouts that begin before it."""
    rollouts = Rollouts(control, uid, run_ids=["r1"])
    control.rollouts |= {each["uid"]: each for each in more}
    rollouts.look()
    return list(rollouts.seen), rollouts.running


def test_a_rollout_that_ends_while_the_proof_is_prepared():
    """The proof would wait for it without an end."""
    assert seen(ControlPlane(rollout("succeeded")), "u") == (["u"], [])


@pytest.mark.parametrize(("run_id", "running"), [("r1", ["u"]), ("other", [])])
def test_nobody_waits_for_rollouts_on_other_servers(run_id, running):
    assert seen(ControlPlane(run_id=run_id), None, rollout("running")) == (["u"], running)


def test_nobody_waits_for_a_rollout_that_had_begun_before():
    assert seen(ControlPlane(rollout("paused"))) == (["u"], [])
