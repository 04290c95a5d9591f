"""The reconciler's rollouts never keep a person's from anything, however long they last."""

import pytest

from artifacts_app.errors import ArtifactInUseError
from artifacts_app.services import delete_artifact
from modules_app.errors import ModuleInUseError
from modules_app.services import delete_module, module_uid
from rollout.domain.errors import RolloutInProgressError
from rollout.domain.request import RolloutRequest
from rollout.domain.retries import Retries
from rollout.domain.rollout.events import Origin
from rollout.messages import Action, Activation, Phase, Reason
from rollout.models import Operation, Rollout
from rollout.planning.planner import plan_of
from rollout.process import offline_nodes
from rollout.process.advance import advance
from rollout.reconciliation.reconciler import reconcile
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import cancel_node, retry_rollout
from rollout.services.start import start_rollout
from tests.recorded_fleet import (
    fleet,
    installed,
    inventory,
    join,
    operation,
    phases,
    rollout,
    say,
    silence,
    start,
    upload,
)
from tests.recorded_modules import load_on, module_object, package

pytestmark = pytest.mark.usefixtures("db")

#: A name that somebody has made up: it heartbeats once, and never answers.
INVENTED = "invented"


def own():
    return list(Rollout.objects.filter(origin="reconciler").order_by("started_position").values_list("uid", flat=True))


def finish(uid, *has):
    advance(uid)
    while asked := [name for name, phase in phases(uid).items() if phase == Phase.QUEUED and name != INVENTED]:
        for name in asked:
            say(uid, name, inventory=inventory(*has))
    return uid


@pytest.fixture
def names():
    """A fleet that has greet 1, and an invented node that the reconciler brings it to."""
    found = fleet(2)
    upload(version=2, content="c2")
    finish(start(released=False), installed())
    join(INVENTED)
    reconcile()
    return found


@pytest.fixture
def scheduled(names):
    """The reconciler's rollout, of which nothing was released."""
    (uid,) = own()
    assert phases(uid) == {INVENTED: "scheduled"}
    return uid


@pytest.fixture
def released(scheduled):
    advance(scheduled)
    assert phases(scheduled) == {INVENTED: "queued"}
    return scheduled


@pytest.fixture
def given_back(released):
    silence(INVENTED)
    offline_nodes.declare_silent_nodes_offline()
    assert phases(released) == {INVENTED: "scheduled"}
    return released


@pytest.fixture(params=["scheduled", "released", "given_back"])
def theirs(request):
    return request.getfixturevalue(request.param)


def request(**more):
    return RolloutRequest(**{"action": Action.INSTALL, "module_name": "greet", "version": 2, **more})


def test_a_rollout_of_the_whole_fleet_starts(theirs):
    assert INVENTED in plan_of(request()).names
    uid = start(version=2)
    assert set(phases(uid)) == {"n0000", "n0001", INVENTED}
    finish(uid, installed(2, "c2"))
    assert [phases(uid)[name] for name in ("n0000", "n0001")] == ["succeeded", "succeeded"]


def test_what_the_reconciler_has_not_started_is_canceled(scheduled):
    start(version=2)
    assert (operation(scheduled, INVENTED).phase, operation(scheduled, INVENTED).reason) == (
        "canceled",
        "newer_rollout",
    )
    advance(scheduled)
    assert rollout(scheduled).phase == "superseded"


def test_what_it_has_started_is_waited_for(released):
    uid = start(version=2)
    assert operation(uid, INVENTED).behind
    say(released, INVENTED)
    advance(uid)
    assert phases(uid)[INVENTED] == "queued"


def test_a_second_person_is_refused_by_the_first(theirs):
    uid = start(version=2)
    for refused in (lambda: start(version=2), lambda: plan_of(request())):
        with pytest.raises(RolloutInProgressError, match=uid):
            refused()


def test_the_reconciler_takes_the_place_of_no_person():
    fleet(1)
    finish(start(released=False), installed())
    join("late")
    uid = start(nodes=("late",), released=False)
    reconcile()
    assert own() == []
    with pytest.raises(RolloutInProgressError, match=uid):
        start_rollout(request(version=1, nodes=("late",), yields=True))


def test_a_local_call_starts(theirs):
    uid = start_rollout(request(version=1, activation=Activation.FILES, nodes=(INVENTED,), origin=Origin.VENDOR))
    assert phases(uid) == {INVENTED: "scheduled"}


def test_what_the_reconciler_would_bring_is_not_deleted(theirs, names):
    """A release may follow at any moment, and no node is to be told to fetch what is gone."""
    module_object("greet")
    finish(start(action=Action.REMOVE, nodes=tuple(names), released=False))
    with pytest.raises(ArtifactInUseError, match=INVENTED):
        delete_artifact("greet", 1)
    with pytest.raises(ModuleInUseError, match=INVENTED):
        delete_module(module_uid("greet", 1))


def test_once_a_person_has_taken_its_place_it_is_deleted(scheduled):
    uid = start(action=Action.REMOVE)
    finish(uid)
    say(uid, INVENTED, inventory=inventory())
    delete_artifact("greet", 1)


def test_the_others_are_tried_again(names):
    cancel_node(own()[0], INVENTED, force=False)
    uid = start(version=2, careful={"canary": 0, "max_parallel": 3, "retries": Retries(limit=0)})
    for name in (INVENTED, names[0]):
        say(uid, name, Phase.FAILED, reason=Reason.LOAD_FAILED)
    assert rollout(uid).phase == "paused"
    start_rollout(request(version=1, nodes=(INVENTED,), yields=True))
    retry_rollout(uid)
    assert [operation(uid, name).attempt for name in (INVENTED, names[0])] == [1, 2]


def test_what_it_has_only_scheduled_keeps_no_node_from_being_rolled_back(names):
    uid = finish(start(version=2, nodes=tuple(names), released=False), installed(2, "c2"))
    start_rollout(request(nodes=(names[0],), yields=True))
    back = roll_back_rollout(uid)
    assert set(phases(back)) == set(names)


def test_a_persons_rollout_waits_for_no_dependency_that_the_reconciler_brings():
    join("n1", INVENTED)
    package("json")
    package("main", needs=["json"])
    start_rollout(request(module_name="json", version=1, nodes=("n1", INVENTED), yields=True))
    uid = start_rollout(request(module_name="main", version=1, nodes=("n1",)))
    (needed,) = rollout(uid).needs
    assert (rollout(needed).origin, phases(needed)) == ("api", {"n1": "scheduled"})


def test_a_module_that_only_the_reconciler_needs_may_be_removed():
    join(INVENTED)
    package("json")
    package("main", needs=["json"])
    load_on([INVENTED], "json")
    start_rollout(request(module_name="main", version=1, nodes=(INVENTED,), yields=True))
    assert plan_of(request(action=Action.REMOVE, module_name="json", version=1)).names == (INVENTED,)


def test_its_own_dependencies_yield_too():
    join("n1")
    package("json")
    package("main", needs=["json"])
    start_rollout(request(module_name="main", version=1, nodes=("n1",), yields=True))
    assert set(Operation.objects.values_list("yields", flat=True)) == {True}
