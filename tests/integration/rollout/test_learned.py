"""What scratch servers have shown about a build is in the plan, in the report and on the module's page."""

import json
from datetime import timedelta

import msgspec
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from artifacts_app.manifest import Member, files_digest
from artifacts_app.models import Build
from rollout.delivery.commands import commands_of
from rollout.domain.retries import Retries
from rollout.domain.strategy import Strategy
from rollout.messages import Action, Phase, Reason, ScratchLoad
from rollout.models import NodeModule, Operation, Rollout, ScratchSuccess
from rollout.process.advance import advance
from rollout.services.rollouts import retry_rollout
from tests.recorded_fleet import fleet, join, say, start
from tests.recorded_modules import load_on, package, released

pytestmark = pytest.mark.django_db

NOT_KNOWN = ["Not known yet: the first node's scratch server will find out."]


def learn(content, key="k", **learned):
    ScratchSuccess.objects.create(
        key=f"{content} {key}", content_sha256=content, node="n1", learned=learned, recorded_at=timezone.now()
    )


def plan(client, version=2, **changes):
    body = {"action": "install", "module_name": "greet", "version": version, **changes}
    return client.post("/v2/rollouts/plan", body, format="json").json()


@pytest.fixture
def two():
    """Two nodes with greet 1, and a package of greet 2. Their builds are `greet-1` and `greet-2`."""
    join("n1", "n2")
    package("greet")
    package("greet", 2)
    load_on(["n1", "n2"], "greet")
    NodeModule.objects.update(content_sha256="greet-1")


def test_it_works(admin, two):
    learn("greet-2", has_types=True, aux_data=True, commands=["b", "a"], options=["greet.x"], differences=["memory"])
    assert plan(admin)["learned"] == {
        "builds": 1,
        "known_builds": 1,
        "has_types": True,
        "aux_data": True,
        "commands": ["a", "b"],
        "options": ["greet.x"],
        "differences": ["memory"],
        "in_words": [
            "It has data types, as n1 says: it can be upgraded and removed only by a restart of the server.",
            "It writes auxiliary data, as n1 says: without it, a server does not load an RDB file that it has saved with it.",
            "It adds 2 commands: a, b.",
            "It has 1 option: greet.x.",
        ],
    }


@pytest.mark.parametrize("observed", ["load", "files"])
def test_a_build_with_types_needs_a_restart(admin, two, observed):
    """Also if its server was away a moment ago: it may load the build again before the operation begins."""
    learn("greet-1", has_types=True)
    NodeModule.objects.update(desired="load", observed=observed)
    skipped = plan(admin, activation="load")["skipped"]
    assert {each["node"]: each["reason"] for each in skipped} == {"n1": "restart_required", "n2": "restart_required"}


def test_nothing_is_known_yet(admin, two):
    learned = plan(admin)["learned"]
    assert (learned["has_types"], learned["commands"], learned["in_words"]) == (None, None, NOT_KNOWN)


def test_a_removal_shows_what_the_nodes_have(admin, two):
    learn("greet-1", has_types=False, aux_data=None, commands=[], options=[])
    learned = plan(admin, version=1, action="remove")["learned"]
    assert learned["in_words"] == [
        "It has no data types.",
        "It is not known if it writes auxiliary data.",
        "It adds no commands.",
        "It has no options.",
    ]


def test_a_build_that_is_not_known_makes_a_no_unknown(admin, two):
    NodeModule.objects.filter(node="n2").update(content_sha256="other")
    learn("greet-1", has_types=False, aux_data=True)
    learned = plan(admin, version=1, action="remove")["learned"]
    assert (learned["has_types"], learned["aux_data"]) == (None, True)
    assert learned["in_words"][-1] == "1 of its builds is not known yet."


def test_the_plan_takes_as_many_queries_for_more_nodes(admin, two):
    def queries():
        with CaptureQueriesContext(connection) as found:
            plan(admin)
        return len(found)

    few = queries()
    names = [f"m{each}" for each in range(20)]
    join(*names)
    load_on(names, "greet")
    assert queries() == few


def test_the_report_shows_it(admin):
    fleet(1)
    uid = start()
    say(uid, "n0000", scratch=ScratchLoad(key="k", has_types=True, commands=("greet.hello",)))
    parts = [b"".join(admin.get(f"/v2/rollouts/{uid}/report{each}").streaming_content) for each in ("", "?format=csv")]
    assert json.loads(parts[0])["learned"]["commands"] == ["greet.hello"]
    assert b"It adds 1 command: greet.hello." in parts[1]


def test_the_report_of_a_removal_has_none(admin, two):
    uid = released(["n1"], module_name="greet", version=1, action=Action.REMOVE)
    assert json.loads(b"".join(admin.get(f"/v2/rollouts/{uid}/report").streaming_content))["learned"] is None


# --- Lost options -----------------------------------------------------------------------------------------------------


def options(former=("greet.x", "greet.y"), new=("greet.x",)):
    learn("greet-1", options=former)
    learn("greet-2", options=new)


def test_the_plan_lists_lost_options(admin, two):
    options()
    found = plan(admin)
    assert found["lost_options"] == [{"node": name, "options": ["greet.y"]} for name in ("n1", "n2")]


def pack_success(content, **facts):
    """Put a success of `modfleet pack` into the package."""
    build = Build.objects.get(content_sha256=content)
    files = files_digest(msgspec.json.decode(build.members, type=list[Member]))
    where = {"server": "redis 7.0.15", "platform": "linux/x86_64/debian12", "files_sha256": files}
    success = {**where, "args": [], "scratch_args": [], "has_types": False, "aux_data": False, **facts}
    build.document = json.dumps(json.loads(build.document) | {"scratch_successes": [success]})
    build.save()


def test_the_plan_lists_lost_options_of_packages_that_were_tried_when_they_were_packed(admin, two):
    pack_success("greet-1", commands=["greet.hello"], options=["greet.x", "greet.y"])
    pack_success("greet-2", commands=["greet.hello"], options=["greet.x"])
    found = plan(admin)
    assert found["lost_options"] == [{"node": name, "options": ["greet.y"]} for name in ("n1", "n2")]
    assert found["learned"]["in_words"][-2:] == ["It adds 1 command: greet.hello.", "It has 1 option: greet.x."]


def test_names_that_a_package_does_not_tell(admin, two):
    """It was packed by an older release."""
    pack_success("greet-2")
    found = plan(admin)
    assert (found["learned"]["options"], found["lost_options"]) == (None, [])
    assert found["learned"]["in_words"][-1] == "Its commands and options are not known yet."


def test_lost_options_are_part_of_the_hash(admin, two):
    before = plan(admin)
    options()
    assert plan(admin)["plan_hash"] != before["plan_hash"]
    body = {"action": "install", "module_name": "greet", "version": 2, "plan_hash": before["plan_hash"]}
    assert admin.post("/v2/rollouts", body, format="json").json()["error_code"] == "plan_changed"


def test_files_and_removals_lose_none(admin, two):
    options()
    assert plan(admin, activation="files")["lost_options"] == []
    assert plan(admin, version=1, action="remove")["lost_options"] == []


def sent(uid):
    return next(command for _, command in commands_of(list(Operation.objects.filter(rollout=uid, node="n1"))))


def test_what_was_in_the_plan_is_accepted(two):
    options()
    uid = released(["n1"], module_name="greet", version=2)
    command = sent(uid)
    assert (command.keep_options, command.accepted_losses, command.options) == (False, ("greet.y",), ("greet.x",))


def test_what_was_not_known_at_the_plan_is_not_accepted(two):
    learn("greet-1", options=["greet.x"])
    uid = released(["n1"], module_name="greet", version=2)
    assert (sent(uid).keep_options, sent(uid).options) == (True, None)
    learn("greet-2", options=[])
    assert (sent(uid).keep_options, sent(uid).options) == (True, ())
    Rollout.objects.update(created_at=timezone.now() + timedelta(seconds=1))
    assert not sent(uid).keep_options


def test_no_strategy_accepts_it(two):
    careful = Strategy(max_failures="100%", retries=Retries(limit=2, backoff_seconds=0, reasons=(Reason.OPTIONS_LOST,)))
    uid = start(nodes=("n1", "n2"), version=2, strategy=careful)
    say(uid, "n1", Phase.FAILED, reason=Reason.OPTIONS_LOST)
    advance(uid)
    assert (Operation.objects.get(rollout=uid, node="n1").phase, sent(uid).keep_options) == (Phase.FAILED, True)
    retry_rollout(uid)
    assert (sent(uid).keep_options, sent(uid).accepted_losses) == (False, None)


def test_a_rollback_may_lose_options(two):
    uid = released(["n1"], module_name="greet", version=2)
    Operation.objects.update(rollback=True)
    assert not sent(uid).keep_options


def test_a_retry_by_a_person_accepts_it_for_the_rollout(two):
    uid = released(["n1"], module_name="greet", version=2)
    assert sent(uid).keep_options
    say(uid, "n1", Phase.FAILED, reason=Reason.OPTIONS_LOST)
    again = retry_rollout(uid)
    assert not sent(again).keep_options
