"""What rollouts have done to the nodes, as the changes of a proof."""

import time
from typing import Any

import pytest

from modfleet.client import ROLLOUTS
from modfleet.commands.meanwhile import Rollouts, Servers
from modfleet.proof.history import Change, Way

NODE = {
    "node": "n1",
    "action": "install",
    "version": 2,
    "phase": "running",
    "activation": "load",
    "way": "load",
    "fails_back_to": None,
    "restart": None,
    "rollback": False,
    "seconds": None,
    "released_at": "2026-11-28T02:24:54Z",
    "finished_at": "2026-11-28T02:24:55Z",
}


def attempt(
    phase="succeeded", *, version=2, rollback=False, action="install", restart=None, released_at="now", seconds=0.1
):
    """`seconds`: None if the node has not said how it has ended."""
    return {
        "phase": phase,
        "version": version,
        "rollback": rollback,
        "action": action,
        "restart": restart,
        "released_at": released_at,
        "seconds": seconds,
    }


LOST = attempt("timed_out", seconds=None)


class ControlPlane:
    """Answers as the API does: rollouts over the same nodes."""

    def __init__(self, *rollouts, run_id="r1"):
        self.rollouts = {each["uid"]: each for each in rollouts}
        self.nodes = [{**NODE, "outcomes": []}]
        self.node = {"server_state": {"run_id": run_id}}

    def every(self, path, **_):
        return list(self.rollouts.values()) if path == ROLLOUTS else self.nodes

    def get(self, path):
        return self.rollouts[path.rpartition("/")[2]] if path.startswith(ROLLOUTS) else self.node


def rollout(phase, *, rollback_of=None, activation="load"):
    return {
        "uid": "u",
        "phase": phase,
        "module_name": "greet",
        "activation": activation,
        "rollback_of": rollback_of,
        "progress": {"queued": 0, "running": 0},
    }


def changes_at(*outcomes, before="1", now="1", of=None, **node) -> list[Change]:
    """What a rollout has done that began and ended between two looks."""
    control: Any = ControlPlane()
    rollouts = Rollouts(control, run_ids=["r1"])
    control.rollouts["u"] = of or rollout("succeeded")
    control.nodes = [{**NODE, "outcomes": list(outcomes), **node}]
    rollouts.look()
    return found(rollouts, before=before, now=now)


def found(rollouts: Rollouts, *, before="1", now="2") -> list[Change]:
    servers = Servers(by_run_id={"r1": "s1"}, before={"s1": before}, after={"s1": now})
    changes, notes = rollouts.changes(servers, module="greet")
    assert notes == []
    return changes


def changed(*outcomes, **given):
    return [(each.action, each.after, each.is_undone) for each in changes_at(*outcomes, **given)]


def test_it_works():
    (change,) = changes_at(attempt(), now="2")
    assert (change.action, change.before, change.after, change.servers) == ("upgrade", "1", "2", ("s1",))
    assert (change.way, change.is_undone) == (Way.LOAD, False)


UPGRADE, FAILED = ("upgrade", "2", False), ("failed upgrade", "2", True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (changed(attempt(), before=""), [("install", "2", False)]),
        (changed(attempt(action="remove")), [("remove", "", False)]),
        (changed(attempt("failed"), attempt()), [FAILED, UPGRADE]),
        (changed(attempt("failed")), [FAILED]),
        (changed(attempt(), attempt("rolled_back", version=1, rollback=True)), [UPGRADE, ("rollback", "1", False)]),
        (
            changed(attempt("failed"), attempt("rolled_back", version=1, rollback=True)),
            [FAILED, ("rollback", "1", False)],
        ),
        (changed(attempt("rolled_back", version=1, rollback=True), before="2"), [("rollback", "1", False)]),
        (changed(attempt("rolled_back", action="remove", rollback=True)), [("rollback", "", False)]),
        (changed(attempt(), attempt("failed", version=1, rollback=True)), [UPGRADE, ("failed rollback", "1", True)]),
        (changed(attempt("skipped")), [("skipped upgrade", "2", True)]),
        (changed(attempt("canceled"), attempt()), [("canceled upgrade", "2", True), UPGRADE]),
        (changed(LOST, now="1"), [("unanswered upgrade", "2", True)]),
        (changed(LOST, now="2"), [("unanswered upgrade", "2", False)]),
        (changed(LOST, attempt("failed")), [("unanswered upgrade", "2", True)]),
        (changed(LOST, attempt("failed"), attempt()), [UPGRADE]),
        (changed(LOST, attempt()), [UPGRADE]),
        (changed(LOST, attempt("rolled_back", rollback=True)), [("undone upgrade", "2", True)]),
        (changed(attempt("canceled", seconds=None)), [("unanswered upgrade", "2", True)]),
        (changed(finished_at=None), [UPGRADE]),
        (changed(attempt("failed", released_at=None), attempt()), [UPGRADE]),
        (changed(attempt("canceled", released_at=None)), []),
        (changed(attempt(), of=rollout("succeeded", activation="files")), []),
        (
            changed(attempt(), attempt("rolled_back", rollback=True), before="", activation="files", rollback=True),
            [("install", "2", False), ("rollback", "", False)],  # it had only the files
        ),
        (changed(attempt(version=1), of=rollout("succeeded", rollback_of="x"), before="2"), [("rollback", "1", False)]),
        (changed(attempt(), fails_back_to="n1"), [("failback", "", False)]),
    ],
)
def test_other_ends(changes, expected):
    assert changes == expected


@pytest.mark.parametrize("given", [{"way": "restart"}, {"outcomes": [attempt(restart={"at": 1})]}])
def test_a_restart(given):
    (change,) = changes_at(attempt(), **given)
    assert change.way is Way.RESTART


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


class Watched:
    """One rollout, from look to look."""

    def __init__(self):
        control: Any = ControlPlane()
        self.control, self.rollouts = control, Rollouts(control, run_ids=["r1"])

    def shows(self, phase="running", **node) -> float:
        """The next look shows this. Return when it was."""
        self.control.rollouts["u"] = rollout(phase)
        self.control.nodes = [{**NODE, "outcomes": [], **node}]
        self.rollouts.look()
        return time.monotonic()


WAITING = {"released_at": None, "finished_at": None}
IN_PROGRESS = {"finished_at": None}


def test_waiting_for_a_person_is_no_change():
    """Nor is a soak, nor a pause: a node is in progress only while its agent works."""
    watched = Watched()
    watched.shows(**WAITING)
    gated = watched.shows("gated", **WAITING)
    begun = watched.shows(**IN_PROGRESS)
    ended = watched.shows(outcomes=[attempt()])
    watched.shows("succeeded", outcomes=[attempt()])
    (change,) = found(watched.rollouts)
    assert change.started_at < gated < begun < change.ended_at <= ended
    (first,) = (each.started_at for each in watched.rollouts.seen["u"].spans["n1"])
    assert change.started_at == first


def test_each_attempt_has_its_own_time():
    """The first attempt may take the version back. The second one may load it again."""
    watched = Watched()
    watched.shows(**IN_PROGRESS)
    failed = watched.shows("paused", outcomes=[attempt("failed")])
    between = watched.shows("paused", outcomes=[attempt("failed")])
    watched.shows(outcomes=[attempt("failed")], **IN_PROGRESS)
    watched.shows("succeeded", outcomes=[attempt("failed"), attempt()])
    first, second = found(watched.rollouts)
    assert (first.is_undone, second.is_undone) == (True, False)
    assert first.ended_at <= failed < second.started_at < between < second.ended_at


def test_what_was_not_answered_may_be_carried_out_until_the_end():
    watched = Watched()
    watched.shows(**IN_PROGRESS)
    ended = watched.shows("failed", outcomes=[LOST])
    (change,) = found(watched.rollouts)
    assert change.ended_at > ended


def test_an_attempt_that_was_given_back():
    """The server was not ready. The node may still be at work, and begins again when the server is ready."""
    watched = Watched()
    begun = watched.shows(**IN_PROGRESS)
    watched.shows(**IN_PROGRESS, phase="scheduled")
    watched.shows("succeeded", outcomes=[attempt()])
    (change,) = found(watched.rollouts)
    assert change.started_at < begun


def test_an_attempt_that_begins_as_another_one_ends():
    """The rollout looks the same, for it has only numbers."""
    watched = Watched()
    watched.shows(**IN_PROGRESS)
    failed = watched.shows(outcomes=[attempt("failed")], **IN_PROGRESS)
    watched.shows(outcomes=[attempt("failed")], **IN_PROGRESS)
    watched.shows("succeeded", outcomes=[attempt("failed"), attempt()])
    first, second = found(watched.rollouts)
    assert second.started_at < first.ended_at < failed
