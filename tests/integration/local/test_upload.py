"""POST /v2/local/modules/user-defined/artifacts: a row of the vendor's table of status codes each, and its waiting."""

from dataclasses import replace
from functools import partial

import pytest
from django.db import connection

from accounts import services as accounts
from artifacts_app.models import Build
from eventstore import head, projections, waiting
from rollout.messages import Phase, Reason
from rollout.models import Operation, Rollout
from rollout.process import timeouts
from rollout.services.freeze import freeze_fleet
from rollout.services.nodes import drain_node
from tests.plugins.databases import at_once
from tests.plugins.packages import AARCH64, ARTIFACTS, LOCAL, as_upload, files_in
from tests.plugins.played_nodes import answer, installed, join, play, playing
from tests.recorded_fleet import overdue


@pytest.fixture
def node(committed_db, named, settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, local_wait_seconds=10)
    join("node1")
    named("node1")


@pytest.fixture
def post(committed_admin, node, pack):
    def posted(package=None, *, key=None):
        headers = {"Idempotency-Key": key} if key else None
        return committed_admin.post(LOCAL, as_upload(package or pack()), headers=headers)

    return posted


@pytest.fixture
def impatient(settings, node):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, local_wait_seconds=0.2)


def refused(response, status, code):
    assert (response.status_code, response.json()["error_code"]) == (status, code)
    assert response["Content-Length"] == str(len(response.content))
    return response.json()["description"]


def test_it_works(post, committed_admin):
    with playing():
        response = post()
    assert (response.status_code, response.content, response["Content-Length"]) == (200, b"{}", "2")
    assert committed_admin.get(LOCAL).json() == [{"module_name": "TestModule", "version": 1, "dependencies": []}]
    assert committed_admin.get(f"{ARTIFACTS}/TestModule/1").status_code == 200
    assert [projections.check(each) for each in projections.registered()] == [[]] * len(projections.registered())


def test_the_same_again_is_a_success(post):
    with playing():
        post()
    with playing(partial(answer, phase=Phase.SKIPPED, reason=Reason.ALREADY_INSTALLED)):
        assert post().status_code == 200
    assert Build.objects.count() == 1


def test_it_is_files_on_this_node_only(post):
    join("node2")
    with playing():
        post()
    operation = Operation.objects.get()
    assert (operation.node, operation.activation) == ("node1", "files")


def test_no_connection_is_held_while_it_waits(post, monkeypatch):
    held, real = [], waiting.Watcher.sleeper

    def sleeper(watcher):
        held.append(connection.connection)
        play()
        return real(watcher)

    monkeypatch.setattr(waiting.Watcher, "sleeper", sleeper)
    assert post().status_code == 200
    assert held == [None]


def test_a_node_that_refuses_gives_its_reason(post):
    with playing(partial(answer, phase=Phase.FAILED, reason=Reason.DISK_FULL, message="No space left.")):
        assert refused(post(), 406, "disk_full") == "No space left."


def test_a_package_for_another_platform_is_refused(post, pack):
    with playing():
        refused(post(pack(machine=AARCH64)), 406, "incompatible_arch")


def test_a_draining_node_refuses(post):
    drain_node("node1")
    with playing():
        refused(post(), 406, "node_draining")


def test_a_frozen_fleet_says_so_at_once(post):
    freeze_fleet("the holidays")
    assert "the holidays" in refused(post(), 503, "fleet_frozen")


def test_a_node_that_does_not_answer(post, impatient):
    assert "continues" in refused(post(), 503, "node_unreachable")
    assert not Phase(Operation.objects.get().phase).is_final


def test_a_retry_joins_what_is_under_way(post, impatient, settings):
    post()
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, local_wait_seconds=10)
    with playing():
        assert post().status_code == 200
    assert Rollout.objects.count() == 1


def test_two_at_once_are_one(post):
    with playing():
        first, second = at_once(post, post)
    assert (first.status_code, second.status_code) == (200, 200)
    assert Build.objects.count() == 1


def test_with_an_idempotency_key_it_is_answered_without_the_node(post):
    with playing():
        post(key="k1")
    again = post(key="k1")
    assert (again.status_code, again.content, again["Idempotency-Replayed"]) == (200, b"{}", "true")
    assert Rollout.objects.count() == 1


def test_an_idempotency_key_of_another_package_is_refused(post, pack, stored):
    with playing():
        post(key="k1")
    files = files_in(stored)
    refused(post(pack(version=2), key="k1"), 406, "idempotency_key_reused")
    assert files_in(stored) == files


def test_with_an_idempotency_key_a_retry_joins_what_is_under_way(post, impatient, settings):
    refused(post(key="k1"), 503, "node_unreachable")
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, local_wait_seconds=10)
    with playing():
        assert post(key="k1").status_code == 200
    assert Rollout.objects.count() == 1


def test_two_at_once_with_one_key_are_one(post):
    with playing():
        first, second = at_once(partial(post, key="k1"), partial(post, key="k1"))
    assert (first.status_code, second.status_code) == (200, 200)
    assert Build.objects.count() == 1


def test_an_operation_timed_out_is_a_node_that_does_not_answer(post):
    def time_out(operation):
        overdue(operation.node)
        timeouts.end_overdue_operations()

    with playing(time_out):
        refused(post(), 503, "node_unreachable")
    assert Operation.objects.get().phase == "timed_out"


def test_another_operation_under_way_is_refused(post, impatient, pack):
    post()
    refused(post(pack(version=2)), 406, "rollout_in_progress")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        pytest.param({}, 400, "no_module", id="no part at all"),
        pytest.param(as_upload(b"x", field="file"), 400, "no_module", id="a part of another name"),
        pytest.param({"module": "text"}, 400, "no_module", id="a field that is no file"),
        pytest.param(as_upload(b""), 400, "invalid_artifact", id="an empty file"),
        pytest.param(as_upload(b"PK\x03\x04 nothing more"), 400, "invalid_artifact", id="no sound zip"),
    ],
)
def test_a_missing_or_bad_artifact_is_refused(committed_admin, node, stored, data, status, code):
    position = head()
    refused(committed_admin.post(LOCAL, data), status, code)
    assert (head(), files_in(stored)) == (position, [])


@pytest.mark.parametrize("content_type", ["application/zip", "application/json", "text/plain", ""])
def test_what_is_not_multipart_is_refused(committed_admin, node, pack, content_type):
    refused(committed_admin.generic("POST", LOCAL, pack(), content_type), 400, "no_module")


@pytest.mark.parametrize("body", [b"", b"--x--\r\n"])
def test_an_empty_body_is_refused(committed_admin, node, body):
    refused(committed_admin.post(LOCAL, body, content_type="multipart/form-data; boundary=x"), 400, "no_module")


@pytest.mark.parametrize("changes", [{"version": "1"}, {"commands": None}, {"module_name": "a/b"}, {"sha256": "x"}])
def test_bad_metadata_is_refused(post, pack, stored, changes):
    position = head()
    refused(post(pack(**changes)), 406, "invalid_module")
    assert (head(), files_in(stored)) == (position, [])


def test_another_build_of_the_platform_is_refused(post, pack, stored):
    with playing():
        post()
    there = files_in(stored)
    refused(post(pack(description="another build")), 406, "artifact_exists")
    assert files_in(stored) == there


def test_with_the_gate_closed_even_an_admin_is_refused(post, committed_admin):
    accounts.update_cluster_settings(allow_modules_upload=False)
    refused(post(), 403, "modules_upload_disabled")
    assert committed_admin.get(LOCAL).status_code == 200


def test_what_was_uploaded_to_one_node_can_be_uploaded_to_the_next(post, committed_admin, pack):
    join("node2", api_hosts=("two.localhost",))
    with playing():
        post()
        response = committed_admin.post(LOCAL, as_upload(pack()), headers={"Host": "two.localhost"})
    assert response.status_code == 200
    assert sorted(Operation.objects.values_list("node", flat=True)) == ["node1", "node2"]


def test_a_module_of_another_version_stays(post, committed_admin):
    join("node1", installed("TestModule", 7))
    with playing():
        post()
    assert [each["version"] for each in committed_admin.get(LOCAL).json()] == [1, 7]
