"""Builds for operating systems: each node gets the one that names what it runs, else the one that names nothing."""

import pytest

from artifacts_app.models import Build
from rollout.delivery import ingestion
from rollout.delivery.commands import commands_of
from rollout.messages import Heartbeat, from_json
from rollout.models import Operation
from rollout.process.advance import advance
from tests.plugins.packages import ARTIFACTS, as_upload
from tests.recorded_fleet import heartbeat_of, join, node, rollout, say, start

pytestmark = pytest.mark.django_db


@pytest.fixture
def upload(admin, pack, storage):
    def uploaded(*systems, status=201, **changes):
        response = admin.post(ARTIFACTS, as_upload(pack(operating_systems=list(systems), **changes)))
        assert response.status_code == status, response.content
        return response.json()

    return uploaded


def started(*names):
    return start(module_name="TestModule", nodes=names or None)


def sha256(command):
    assert command.package
    return command.package.content_sha256


def platform_of(row):
    """The platform whose build the operation brings."""
    return Build.objects.get(content_sha256=row.content_sha256).platform


def outcomes(uid):
    rows = Operation.objects.filter(rollout=uid)
    return {row.node: row.reason or platform_of(row) for row in rows}


def test_each_node_gets_its_build(upload):
    for systems in (("rhel9",), ("Rocky 8.9",)):
        upload(*systems)
    join("nine", operating_system="rhel9")
    join("eight", operating_system="rhel8")
    join("debian", operating_system="debian12")
    join("silent")
    uid = started()
    assert outcomes(uid) == {
        "nine": "rhel9/x86_64",
        "eight": "rhel8/x86_64",
        "debian": "incompatible_os",
        "silent": "incompatible_os",
    }
    messages = dict(Operation.objects.filter(rollout=uid).values_list("node", "message"))
    assert messages["debian"] == "debian runs debian12 on x86_64; there are builds for rhel8/x86_64, rhel9/x86_64."
    assert messages["silent"].startswith("silent does not report its operating system;")


def test_what_is_sent_is_that_build(upload):
    upload()
    upload("rhel9", description="for rhel9")
    join("nine", operating_system="rhel9")
    join("silent")
    started()
    sent = {row.node: sha256(command) for row, command in commands_of(list(Operation.objects.all()))}
    builds = dict(Build.objects.values_list("platform", "content_sha256"))
    assert sent == {"nine": builds["rhel9/x86_64"], "silent": builds["linux/x86_64"]}


def test_a_closer_build_that_comes_later_does_not_take_the_planned_one_away(upload):
    upload()
    join("nine", operating_system="rhel9")
    uid = started()
    upload("rhel9", description="for rhel9")
    ((row, command),) = commands_of(list(Operation.objects.all()))
    assert (row.rollout, sha256(command)) == (uid, row.content_sha256)
    assert platform_of(row) == "linux/x86_64"


@pytest.mark.parametrize(
    ("changed", "reason", "words"),
    [
        ({"operating_system": "rhel8"}, "incompatible_os", "n1 runs rhel8 on x86_64 now; the rollout was planned with"),
        ({"operating_system": ""}, "incompatible_os", "n1 no longer reports its operating system;"),
        (
            {"operating_system": "rhel9", "platform": "linux/aarch64"},
            "incompatible_arch",
            "n1 is linux/aarch64 now; the rollout was planned with the build for rhel9/x86_64.",
        ),
    ],
)
@pytest.mark.parametrize("other_build", [False, True])
def test_a_node_that_changes_between_plan_and_publish(upload, changed, reason, words, other_build):
    upload("rhel9")
    if other_build:
        upload("rhel8", description="for rhel8")
    join("n1", operating_system="rhel9")
    uid = start(module_name="TestModule", careful={})
    ingestion.record_heartbeats([heartbeat_of("n1", **changed)])
    assert list(commands_of(list(Operation.objects.all()))) == []
    row = Operation.objects.get(rollout=uid)
    assert (row.phase, row.reason, row.attempt) == ("failed", reason, 1)
    assert row.message.startswith(words)
    assert row.message.endswith("Start another rollout for it.")


def test_a_build_that_is_gone_is_said_to_be_gone(upload):
    upload("rhel9")
    join("n1", operating_system="rhel9")
    uid = started()
    Build.objects.all().delete()
    assert list(commands_of(list(Operation.objects.all()))) == []
    row = Operation.objects.get(rollout=uid)
    assert (row.reason, row.message) == ("fetch_failed", "The build of TestModule 1 for n1 was deleted.")


def test_a_build_of_another_machine_is_another_platform(upload):
    upload("rhel9")
    join("arm", platform="linux/aarch64", operating_system="rhel9")
    assert outcomes(started()) == {"arm": "incompatible_arch"}


def test_two_systems_of_one_version_are_no_conflict_and_one_is(upload):
    first = upload("rhel8", "rhel9")
    assert [each["platform"] for each in first["builds"]] == ["rhel8/x86_64", "rhel9/x86_64"]
    assert len({each["package_sha256"] for each in first["builds"]}) == 1
    upload("rhel8", "rhel9", status=200)
    upload("debian12")
    upload()
    upload("rhel9", description="another", status=409)


def test_the_vendors_map_has_a_platform_for_each(admin, pack, storage):
    admin.post("/v2/modules", as_upload(pack(operating_systems=["rhel8", "rhel9"])))
    (module,) = admin.get("/v1/modules").json()
    assert sorted(module["platforms"]) == ["rhel8/x86_64", "rhel9/x86_64"]
    assert module["operating_systems"] == ["rhel8", "rhel9"]


def test_the_artifact_goes_with_all_its_builds(admin, upload):
    upload("rhel8", "rhel9")
    assert admin.delete(f"{ARTIFACTS}/TestModule/1").status_code == 200
    assert not Build.objects.exists()


def test_an_agent_that_says_later_what_it_runs_gets_the_build(upload):
    upload("rhel9")
    join("n1")
    assert outcomes(started()) == {"n1": "incompatible_os"}
    ingestion.record_heartbeats([heartbeat_of("n1", operating_system="rhel9")])
    assert node("n1").operating_system == "rhel9"
    uid = started()
    assert outcomes(uid) == {"n1": "rhel9/x86_64"}
    say(uid, "n1")
    advance(uid)
    assert rollout(uid).phase == "succeeded"


def test_nodes_show_it_and_are_found_by_it(admin, upload):
    join("nine", operating_system="rhel9")
    join("silent")
    shown = {each["name"]: each["operating_system"] for each in admin.get("/v2/nodes").json()["results"]}
    assert shown == {"nine": "rhel9", "silent": ""}
    (found,) = admin.get("/v2/nodes?operating_system=rhel9").json()["results"]
    assert found["name"] == "nine"


def test_the_heartbeat_of_an_older_agent_is_read():
    body = heartbeat_of("n1")
    del body["profile"]["operating_system"]
    assert from_json(Heartbeat, body).profile.operating_system == ""
