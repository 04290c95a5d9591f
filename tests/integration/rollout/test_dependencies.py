"""Modules that need others: those come first, and do not go before."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from eventstore import read
from rollout.domain.errors import (
    DependencyCycleError,
    MissingDependencyError,
    ModuleNeededError,
    RolloutInProgressError,
)
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.events import Origin, RolloutStarted
from rollout.domain.strategy import Gate, Strategy
from rollout.messages import Action, Activation
from rollout.planning.planner import plan_of
from rollout.services.start import start_rollout
from tests.recorded_fleet import installed, join, operation, phases
from tests.recorded_modules import load_on, module_object, package, released

pytestmark = pytest.mark.django_db

REQUEST = RolloutRequest(action=Action.INSTALL, module_name="main", version=1)
REMOVAL = RolloutRequest(action=Action.REMOVE, module_name="json", version=1)
ARM = "linux/aarch64"


def before(request=REQUEST):
    """Module, version and nodes of each dependency, in order."""
    return [
        (each.request.module_name, each.request.version, tuple(node.name for node in each.nodes))
        for each in plan_of(request).before
    ]


def started():
    return {each.event.module_name: each.event for each in read(event_classes=[RolloutStarted])}


# --- What comes before ------------------------------------------------------------------------------------------------


def test_what_is_needed_comes_first_by_a_rollout_of_its_own():
    join("n1", "n2")
    package("json")
    package("main", needs=["json"])
    uid = start_rollout(REQUEST)
    json, main = started()["json"], started()["main"]
    assert list(started()) == ["json", "main"]
    assert (main.rollout, main.needs, main.named) == (uid, (json.rollout,), False)
    assert (json.origin, json.named, json.activation, json.needs) == (Origin.API, True, Activation.LOAD, ())
    assert phases(json.rollout) == {"n1": "scheduled", "n2": "scheduled"}


def test_the_newest_version_that_has_a_build_is_installed():
    join("n1")
    package("json", 9)
    package("json", 10)
    module_object("json", 11)
    package("main", needs=["json"])
    assert before() == [("json", 10, ("n1",))]


def test_where_any_version_is_loaded_nothing_is_needed():
    join("n1", "n2")
    package("json")
    load_on(["n1"], "json")
    package("json", 2)
    package("main", needs=["json"])
    assert before() == [("json", 2, ("n2",))]


def test_files_alone_are_not_enough():
    join("n1")
    package("json")
    package("main", needs=["json"])
    released(["n1"], module_name="json", activation=Activation.FILES)
    start_rollout(replace(REQUEST, supersede=True))
    assert list(started()) == ["json", "main"]


def test_for_files_alone_nothing_is_needed():
    join("n1")
    package("json")
    package("main", needs=["json"])
    assert before(replace(REQUEST, activation=Activation.FILES)) == []


def test_what_travels_in_the_package_is_not_needed():
    join("n1")
    package("json")
    package("main", needs=["json"], packed=["json"])
    assert before() == []


def test_a_module_that_was_never_uploaded_is_named():
    join("n1", "n2")
    package("main", needs=["json"])
    with pytest.raises(MissingDependencyError) as error:
        start_rollout(REQUEST)
    assert error.value.code == "missing_dependency"
    assert str(error.value) == (
        "main 1 needs json, which has no package and is not loaded on n1, n2. Upload a package of json first."
    )
    assert started() == {}


def test_what_a_dependency_needs_is_named_too():
    join("n1")
    package("json", needs=["base"])
    package("main", needs=["json"])
    with pytest.raises(MissingDependencyError, match="json 1 needs base"):
        plan_of(REQUEST)


def test_what_is_built_into_the_server_is_there():
    join("n1", other_modules=("json",))
    package("main", needs=["json"])
    assert (before(), plan_of(REQUEST).names) == ([], ("n1",))
    package("json")
    assert before() == []
    join("n2")
    assert before() == [("json", 1, ("n2",))]


def test_what_is_loaded_though_nobody_asked_for_it_is_there():
    join("n1", modules=[installed(module_name="json")])
    package("main", needs=["json"])
    assert plan_of(REQUEST).names == ("n1",)


def test_the_reconciler_leaves_such_nodes_for_later():
    join("n1")
    package("main", needs=["json"])
    (skipped,) = plan_of(replace(REQUEST, yields=True)).skipped
    assert (skipped.reason, skipped.message) == (
        "missing_dependency",
        "main 1 needs json, which has no package. Upload a package of json first.",
    )


def test_what_only_the_module_object_lists_is_needed_too():
    join("n1")
    package("json")
    package("main")
    module_object("main", dependencies={"json": {}})
    assert before() == [("json", 1, ("n1",))]


def test_what_is_needed_needs_others_and_each_comes_once():
    join("n1")
    package("base")
    package("left", needs=["base"])
    package("right", needs=["base"])
    package("main", needs=["left", "right"])
    start_rollout(REQUEST)
    all_started = started()
    assert list(all_started) == ["base", "left", "right", "main"]
    base, left, right = (all_started[name].rollout for name in ("base", "left", "right"))
    assert all_started["left"].needs == all_started["right"].needs == (base,)
    assert all_started["main"].needs == (left, right)


def test_a_cycle_is_refused_and_named():
    join("n1")
    package("one", needs=["two"])
    package("two", needs=["main"])
    package("main", needs=["one"])
    with pytest.raises(DependencyCycleError) as error:
        plan_of(REQUEST)
    assert all(f"{a} needs {b}" in f"{error.value} one" for a, b in [("one", "two"), ("two", "main")])


def test_a_cycle_of_what_is_loaded_already_is_none():
    join("n1")
    package("one")
    load_on(["n1"], "one")
    package("main", needs=["one"])
    load_on(["n1"], "main")
    package("main", 2, needs=["one"])
    assert before(replace(REQUEST, version=2)) == []


def test_a_node_that_cannot_have_what_is_needed_is_skipped():
    join("n1")
    join("n2", platform=ARM)
    package("json")
    package("other", 1, "linux/x86_64", ARM)
    package("main", 1, "linux/x86_64", ARM, needs=["json", "other"])
    plan = plan_of(REQUEST)
    (skipped,) = plan.skipped
    assert (skipped.name, skipped.reason) == ("n2", "missing_dependency")
    assert skipped.message.startswith("json 1 must be loaded first: n2 is linux/aarch64")
    assert before() == [("json", 1, ("n1",)), ("other", 1, ("n1",))]  # n2 gets nothing in vain


def test_a_module_without_any_package_cannot_be_had():
    join("n1")
    module_object("json")
    package("main", needs=["json"])
    with pytest.raises(MissingDependencyError):
        plan_of(REQUEST)


def test_what_is_being_brought_is_waited_for():
    join("n1", "n2")
    package("json")
    package("main", needs=["json"])
    under_way = released(["n1"], module_name="json")
    assert before() == [("json", 1, ("n2",))]
    start_rollout(REQUEST)
    own = next(
        each.event
        for each in read(event_classes=[RolloutStarted])
        if each.event.rollout in started()["main"].needs and each.event.rollout != under_way
    )
    assert started()["main"].needs == (under_way, own.rollout)


def test_what_is_being_removed_is_in_the_way():
    join("n1")
    package("json")
    load_on(["n1"], "json")
    package("main", needs=["json"])
    uid = released(["n1"], module_name="json", action=Action.REMOVE)
    with pytest.raises(RolloutInProgressError) as error:
        start_rollout(REQUEST)
    assert error.value.rollout == uid


def test_what_comes_before_has_no_gates_and_no_less_approval():
    join("n1", "n2")
    package("json")
    package("main", needs=["json"])
    strategy = Strategy(
        approval=True, gate=Gate.MANUAL, start_at=datetime(2030, 1, 1, tzinfo=UTC), soak_seconds=5, min_healthy=1
    )
    start_rollout(replace(REQUEST, strategy=strategy))
    assert started()["main"].strategy == strategy
    assert started()["json"].strategy == replace(strategy, gate=Gate.NONE)


def test_what_comes_before_keeps_no_more_nodes_healthy_than_it_can():
    join("n1", "n2")
    package("json")
    load_on(["n1"], "json")
    package("main", needs=["json"])
    start_rollout(replace(REQUEST, strategy=Strategy(min_healthy=1)))
    assert [each.event.strategy.min_healthy for each in read(event_classes=[RolloutStarted])][-2:] == [0, 1]


@pytest.mark.parametrize("count", [5, 50])
def test_dependencies_cost_the_same_for_any_number_of_nodes(count, django_assert_num_queries):
    join(*(f"n{number}" for number in range(count)))
    package("json")
    package("main", needs=["json"])
    with django_assert_num_queries(15):  # 9 for the module; shards; newest version, builds, object, there, under way
        plan_of(REQUEST)


# --- What does not go -------------------------------------------------------------------------------------------------


def test_what_another_module_needs_is_not_removed():
    names = [f"n{number}" for number in range(7)]
    join(*names)
    package("json")
    load_on(names, "json")
    package("main", needs=["json"])
    load_on(names, "main")
    with pytest.raises(ModuleNeededError) as error:
        plan_of(REMOVAL)
    assert str(error.value) == "main 1 needs json on n0, n1, n2, n3, n4 and 2 more. Remove it there first."


def test_what_a_module_on_its_way_will_need_is_not_removed():
    join("n1")
    package("json")
    load_on(["n1"], "json")
    package("main", needs=["json"])
    start_rollout(replace(REQUEST, strategy=Strategy(approval=True)))
    with pytest.raises(ModuleNeededError):
        plan_of(REMOVAL)


def test_it_is_removed_from_other_nodes():
    join("n1", "n2")
    package("json")
    load_on(["n1", "n2"], "json")
    package("main", needs=["json"])
    load_on(["n1"], "main")
    assert plan_of(replace(REMOVAL, nodes=("n2",))).total == 1
    with pytest.raises(ModuleNeededError):
        plan_of(REMOVAL)


def test_a_version_goes_while_another_one_stays_loaded():
    join("n1")
    package("json")
    load_on(["n1"], "json")
    package("json", 2)
    load_on(["n1"], "json", 2)
    package("main", needs=["json"])
    load_on(["n1"], "main")
    assert plan_of(REMOVAL).total == 1
    with pytest.raises(ModuleNeededError):
        plan_of(replace(REMOVAL, version=2))


def test_what_packs_it_does_not_need_it():
    join("n1")
    package("json")
    load_on(["n1"], "json")
    package("main", packed=["json"])
    load_on(["n1"], "main")
    assert plan_of(REMOVAL).total == 1


def test_once_the_other_one_is_gone_it_goes():
    join("n1")
    package("json")
    load_on(["n1"], "json")
    package("main", needs=["json"])
    load_on(["n1"], "main")
    uid = released(["n1"], module_name="main", action=Action.REMOVE)
    assert operation(uid, "n1").phase == "queued"
    assert plan_of(REMOVAL).total == 1
