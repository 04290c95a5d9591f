"""What a command says of the load: the order of the node's modules, how long it settles, whether data may need it."""

import pytest

from rollout.delivery import outbox
from rollout.delivery.outbox import publish_due
from rollout.domain.strategy import Health
from rollout.messages import Action, FailedCalls
from rollout.models import Rollout
from rollout.planning.load_order import in_order
from tests.recorded_fleet import join, operation, say, start
from tests.recorded_modules import load_on, module_object, package, released

pytestmark = pytest.mark.django_db


@pytest.fixture
def sent(monkeypatch):
    """The commands by node."""
    found = {}
    monkeypatch.setattr(outbox, "_send", lambda command, _, **__: found.update({command.node: command}))
    return found


def test_each_node_gets_the_order_of_its_own_modules(sent):
    for node in ("n1", "n2"):
        join(node)
    package("json")
    load_on(["n1", "n2"], "json")
    package("alone")
    load_on(["n1"], "alone")
    package("main", needs=["json"])
    load_on(["n1"], "main")
    package("json", 2)
    released(["n1", "n2"], module_name="json", version=2)
    publish_due()
    assert (sent["n1"].load_order, sent["n2"].load_order) == (("json", "main"), ())


def test_the_module_under_way_counts_too(sent):
    join("n1")
    package("json")
    load_on(["n1"], "json")
    package("main", needs=["json"])
    released(["n1"], module_name="main")
    publish_due()
    assert sent["n1"].load_order == ("json", "main")


@pytest.mark.parametrize(
    ("needs", "order"),
    [
        ({"c": ["b"], "b": ["a"], "a": []}, ("a", "b", "c")),
        ({"a": ["b"], "b": [], "z": []}, ("b", "a")),
        ({"a": ["elsewhere"], "b": []}, ()),
        ({"a": ["b"], "b": ["a"]}, ()),
        ({"a": ["a"]}, ()),
    ],
)
def test_only_modules_that_need_each_other_have_an_order(needs, order):
    assert in_order(needs.items()) == order


def test_the_strategy_says_how_long_it_settles(sent):
    join("n1")
    package("greet")
    start(careful={"settle_seconds": 3.0})
    publish_due()
    assert sent["n1"].settle_seconds == 3.0


def test_a_rollout_of_the_release_before_settles_as_by_default(sent):
    join("n1")
    package("greet")
    uid = start()
    strategy = Rollout.objects.get(uid=uid).strategy
    Rollout.objects.update(strategy={key: value for key, value in strategy.items() if key != "settle_seconds"})
    publish_due()
    assert sent["n1"].settle_seconds == 10.0


def test_the_strategy_says_what_more_failed_calls_mean(sent):
    join("n1")
    package("greet")
    start(careful={"health": Health(failed_calls=FailedCalls.STOP)})
    publish_due()
    assert sent["n1"].failed_calls is FailedCalls.STOP


def test_a_rollout_of_the_release_before_warns(sent):
    join("n1")
    package("greet")
    uid = start()
    strategy = Rollout.objects.get(uid=uid).strategy
    Rollout.objects.update(strategy={key: value for key, value in strategy.items() if key != "health"})
    publish_due()
    assert sent["n1"].failed_calls is FailedCalls.WARN


@pytest.mark.parametrize(("capabilities", "has_types"), [([], False), (["persistence_rdb"], False), (["types"], True)])
def test_data_types_are_a_capability(sent, capabilities, has_types):
    join("n1")
    package("greet", capabilities=capabilities)
    start()
    publish_due()
    assert sent["n1"].has_types is has_types


def test_the_module_object_may_declare_them_too(sent):
    join("n1")
    package("greet")
    module_object("greet", capabilities=["types"])
    start()
    publish_due()
    assert sent["n1"].has_types


def test_what_is_not_known_any_more_may_have_types(sent):
    join("n1")
    start(action=Action.REMOVE, version=7)
    publish_due()
    assert sent["n1"].has_types


def test_the_swap_is_kept_with_the_operation(sent):
    join("n1")
    package("greet")
    uid = start()
    say(uid, "n1", seconds=2.0, swap_seconds=0.004)
    assert operation(uid, "n1").swap_seconds == 0.004
