"""Loads in scratch servers that have succeeded on one node are known to all others."""

import json
from dataclasses import replace

import msgspec
import pytest
from django.utils import timezone

from artifacts_app.manifest import Member, files_digest
from artifacts_app.models import Build
from rollout.delivery.commands import commands_of
from rollout.delivery.scratch_successes import forget_useless_successes
from rollout.messages import Action, Phase, ScratchLoad, scratch_key
from rollout.models import NodeModule, Operation, ScratchSuccess
from rollout.process.advance import advance
from rollout.queries.learned import MOST_KEYS, MOST_KEYS_OF_NODE, MOST_NODES, build_facts
from rollout.services.nodes import decommission_node, revoke_node
from rollout.services.rollback import roll_back_rollout
from tests.recorded_fleet import fleet, installed, inventory, join, say, start
from tests.recorded_modules import load_on, package, released

pytestmark = pytest.mark.django_db

KEY = scratch_key(content_sha256="c1", server="redis 7.0.15", args=(), platform="linux/x86_64/debian12")
DONE = ScratchLoad(key=KEY, has_types=True, commands=("greet.hello",))


def sent():
    return {row.node: command for row, command in commands_of(list(Operation.objects.order_by("node")))}


def test_it_works():
    fleet(2)
    uid = start()
    assert sent()["n0001"].scratch_done == ()
    say(uid, "n0000", scratch=DONE)
    row = ScratchSuccess.objects.get()
    assert (row.key, row.content_sha256, row.node, row.learned["has_types"]) == (KEY, "c1", "n0000", True)
    assert sent()["n0001"].scratch_done == (KEY,)


def test_the_first_ones_are_kept():
    fleet(MOST_NODES + 1)
    uid = start(max_parallel=MOST_NODES + 1)
    for number in range(MOST_NODES + 1):
        say(uid, f"n{number:04}", scratch=DONE)
    nodes = ScratchSuccess.objects.order_by("node").values_list("node", flat=True)
    assert [*nodes] == [f"n{number:04}" for number in range(MOST_NODES)]


def test_a_failure_is_no_success():
    fleet(1)
    uid = start()
    say(uid, "n0000", scratch=ScratchLoad(key=KEY, problem="In a scratch server: it has crashed."))
    assert not ScratchSuccess.objects.exists()


def test_a_report_that_is_not_believed_is_no_success():
    fleet(2)
    uid = start(max_parallel=1)
    say(uid, "n0001", Phase.SUCCEEDED, scratch=DONE)  # nothing was released to it
    assert not ScratchSuccess.objects.exists()


def test_of_other_bytes_it_says_nothing():
    fleet(2)
    uid = start()
    say(uid, "n0000", scratch=DONE)
    ScratchSuccess.objects.update(content_sha256="c2")
    assert sent()["n0001"].scratch_done == ()


# --- What is known of the bytes that a node has


def learn(content, key, node="elsewhere", **learned):
    join(node)
    done = {"key": key, **learned}
    ScratchSuccess.objects.create(key=key, content_sha256=content, node=node, learned=done, recorded_at=timezone.now())


def removal(content="greet-1"):
    """The command that removes greet 1 from a node that has these bytes."""
    join("n1")
    package("greet")
    load_on(["n1"], "greet")
    NodeModule.objects.update(content_sha256=content)
    released(["n1"], action=Action.REMOVE, module_name="greet", version=1)
    (row,) = Operation.objects.filter(action=Action.REMOVE)
    ((_, command),) = commands_of([row])
    return command


@pytest.mark.parametrize("known", [True, False])
def test_a_removal_says_what_any_node_has_seen(known):
    learn("greet-1", "k1", has_types=known, aux_data=known)
    command = removal()
    assert (command.has_types, command.aux_data, command.scratch_done) == (known, known, ())


@pytest.mark.parametrize("learned", [{}, {"has_types": None, "aux_data": None}])
def test_what_no_node_has_seen_is_not_known(learned):
    learn("greet-1", "k1", **learned)
    command = removal()
    assert (command.has_types, command.aux_data) == (False, None)


def test_one_server_that_has_seen_it_is_enough():
    learn("greet-1", "k1", aux_data=False)
    learn("greet-1", "k2", aux_data=True)
    learn("greet-1", "k3", aux_data=None)
    assert removal().aux_data is True


def test_the_bytes_on_the_node_count_and_not_the_catalogue():
    learn("greet-1", "k1", has_types=True, aux_data=True)
    command = removal(content="others")
    assert (command.has_types, command.aux_data) == (False, None)


def test_an_installation_says_it_of_the_new_bytes():
    fleet(1)
    start()
    learn("c1", KEY, has_types=True, aux_data=True)
    assert (sent()["n0000"].has_types, sent()["n0000"].aux_data) == (True, None)


def test_an_undo_says_it_of_the_version_that_it_removes():
    join("n1")
    package("greet")
    package("greet", 2)
    load_on(["n1"], "greet")
    uid = released(["n1"], module_name="greet", version=2)
    news = installed(2, "greet-2", module_name="greet")
    say(uid, "n1", Phase.SUCCEEDED, seconds=2.0, inventory=inventory(news))
    learn("greet-2", "k1", aux_data=True)
    advance(roll_back_rollout(uid))
    row = Operation.objects.get(undoes=2)
    ((_, command),) = commands_of([row])
    assert (command.version, command.undoes, command.aux_data) == (1, 2, True)


@pytest.mark.parametrize(
    ("given", "sent_args"), [({}, None), ({"scratch_args": ""}, ""), ({"scratch_args": "a b"}, "a b")]
)
def test_the_arguments_for_scratch_servers_come_from_module_json(given, sent_args):
    fleet(1)
    start()
    build = Build.objects.get()
    build.document = json.dumps(json.loads(build.document) | given)
    build.save()
    assert sent()["n0000"].scratch_args == sent_args


def test_a_key_tells_arguments_and_words_apart():
    same = {"content_sha256": "c1", "server": "redis 7.0.15", "platform": "linux/x86_64"}
    assert scratch_key(**same, args=("a b",)) != scratch_key(**same, args=("a", "b"))
    assert scratch_key(**same, args=("a",)) == scratch_key(**same, args=("a",))


# --- Successes of `modfleet pack` -------------------------------------------------------------------------------------


def pack_success(**changes):
    """Put a success into the package of the fleet's module, as an upload would."""
    build = Build.objects.get()
    success = {
        "server": "redis 7.0.15",
        "platform": "linux/x86_64/debian12",
        "files_sha256": files_digest(msgspec.json.decode(build.members, type=list[Member])),
        "args": [],
        "scratch_args": [],
        "aux_data": True,
    }
    build.document = json.dumps(json.loads(build.document) | {"scratch_successes": [success | changes]})
    build.save()


def test_a_success_in_the_package_counts():
    fleet(1)
    start()
    pack_success()
    key = scratch_key(content_sha256="c1", server="redis 7.0.15", args=("",), platform="linux/x86_64/debian12")
    assert (sent()["n0000"].scratch_done, sent()["n0000"].scratch_sources) == ((key,), ("package",))


def test_where_a_success_comes_from_is_sent():
    fleet(2)
    uid = start()
    say(uid, "n0000", scratch=DONE)
    assert sent()["n0001"].scratch_sources == ("node n0000",)


def test_a_success_of_other_files_does_not_count():
    fleet(1)
    start()
    pack_success(files_sha256="0" * 64)
    assert sent()["n0000"].scratch_done == ()


def test_a_node_that_relies_on_another_has_no_success_of_its_own():
    fleet(1)
    uid = start()
    say(uid, "n0000", scratch=replace(DONE, source="package"))
    assert not ScratchSuccess.objects.exists()


# --- Old ones ---------------------------------------------------------------------------------------------------------


def test_the_newest_are_kept():
    fleet(1)
    uid = start()
    join(*(f"elsewhere{number}" for number in range(MOST_KEYS + 10)))
    for number in range(MOST_KEYS + 10):
        for content in ("c1", "c2"):
            ScratchSuccess.objects.create(
                key=f"old{number}",
                content_sha256=content,
                node=f"elsewhere{number}",
                learned={},
                recorded_at=timezone.now(),
            )
    say(uid, "n0000", scratch=DONE)
    assert ScratchSuccess.objects.filter(content_sha256="c1").count() == MOST_KEYS
    assert ScratchSuccess.objects.filter(key=KEY).exists()
    assert not ScratchSuccess.objects.filter(content_sha256="c1", key="old0").exists()
    assert ScratchSuccess.objects.filter(content_sha256="c2").count() == MOST_KEYS + 10


def test_a_node_displaces_only_its_own():
    fleet(1)
    uid = start()
    for number in range(MOST_KEYS + 10):
        learn("c1", f"liar{number}", node="liar") if number else learn("c1", "honest", node="honest")
    say(uid, "n0000", scratch=DONE)
    rows = ScratchSuccess.objects.filter(content_sha256="c1")
    assert set(rows.exclude(node="liar").values_list("key", flat=True)) == {"honest", KEY}
    assert rows.filter(node="liar").count() == MOST_KEYS_OF_NODE


@pytest.mark.parametrize("leave", [decommission_node, revoke_node], ids=["decommissioned", "revoked"])
def test_those_of_a_node_that_has_left_do_not_count(leave):
    fleet(1)
    start()
    learn("c1", KEY, has_types=True)
    assert (sent()["n0000"].scratch_done, sent()["n0000"].has_types) == ((KEY,), True)
    leave("elsewhere")
    assert (sent()["n0000"].scratch_done, sent()["n0000"].has_types) == ((), False)
    assert forget_useless_successes() == 1


def test_those_of_nodes_that_have_left_take_no_place():
    fleet(MOST_NODES + 1)
    uid = start(max_parallel=MOST_NODES + 1)
    for number in range(MOST_NODES):
        say(uid, f"n{number:04}", scratch=DONE)
        decommission_node(f"n{number:04}")
    say(uid, f"n{MOST_NODES:04}", scratch=DONE)
    assert build_facts(["c1"])["c1"].types_from == (f"n{MOST_NODES:04}",)


def test_those_of_a_deleted_build_are_deleted():
    """Unless a node still has it: its removal needs what was learned."""
    fleet(1)
    load_on(["n0000"], "greet")
    NodeModule.objects.update(content_sha256="loaded")
    for each in ("c1", "loaded", "deleted"):
        learn(each, each)
    assert forget_useless_successes() == 1
    assert set(ScratchSuccess.objects.values_list("key", flat=True)) == {"c1", "loaded"}
