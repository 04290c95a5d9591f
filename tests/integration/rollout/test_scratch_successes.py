"""Loads in scratch servers that have succeeded on one node are known to all others."""

import json

import pytest

from artifacts_app.models import Build
from rollout.delivery.commands import commands_of
from rollout.messages import Phase, ScratchLoad, scratch_key
from rollout.models import Operation, ScratchSuccess
from tests.recorded_fleet import fleet, say, start

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


def test_the_first_one_counts():
    fleet(2)
    uid = start(max_parallel=2)
    say(uid, "n0000", scratch=DONE)
    say(uid, "n0001", scratch=DONE)
    assert ScratchSuccess.objects.get().node == "n0000"


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
