"""The vendor's older routes for modules: POST /v2/modules, GET /v1/modules, DELETE of both."""

import hashlib
from functools import partial

import pytest

from accounts import services as accounts
from artifacts_app.models import Build
from eventstore import head, projections
from modules_app.models import Module
from rollout.domain.request import RolloutRequest
from rollout.messages import Action, Phase, Reason
from rollout.models import Operation, Rollout
from rollout.services.nodes import drain_node
from rollout.services.start import start_rollout
from tests.plugins.packages import AARCH64, as_upload, files_in, module_object
from tests.plugins.played_nodes import answer, join, play

URL = "/v2/modules"


@pytest.fixture
def post(admin, pack):
    def posted(*, key=None, **changes):
        return admin.post(URL, as_upload(pack(**changes)), headers={"Idempotency-Key": key} if key else None)

    return posted


def refused(response, status, code):
    assert (response.status_code, response.json()["error_code"]) == (status, code)
    assert response.json().keys() == {"error_code", "description"}
    assert response["Content-Length"] == str(len(response.content))


def action(admin, uid):
    return admin.get(f"/v1/actions/{uid}").json()


# --- Upload -----------------------------------------------------------------------------------------------------------


def test_it_works(admin, post):
    join("node1")
    join("node2")
    response = post(version=10203.0)
    document = response.json()
    assert response.status_code == 200
    assert module_object(version=10203).items() <= document.items()
    assert isinstance(document["uid"], str)
    assert play() == 2
    assert action(admin, document["action_uid"])["status"] == "completed"
    assert {each.activation for each in Operation.objects.all()} == {"files"}


def test_the_same_again_joins_the_action_under_way(post):
    join("node1")
    first, again = post(), post()
    assert first.json() == again.json()
    assert Rollout.objects.count() == 1


def test_the_same_again_later_is_another_action(post):
    join("node1")
    first = post()
    play()
    again = post()
    assert again.status_code == 200
    assert again.json()["action_uid"] != first.json()["action_uid"]
    assert Build.objects.count() == 1


def test_with_an_idempotency_key_it_is_one_action(post):
    join("node1")
    first = post(key="k1")
    play()
    again = post(key="k1")
    assert (again.status_code, again.json(), again["Idempotency-Replayed"]) == (200, first.json(), "true")
    assert Rollout.objects.count() == 1


def test_an_idempotency_key_of_another_package_is_refused(post, stored):
    post(key="k1")
    files = files_in(stored)
    refused(post(key="k1", version=2), 409, "idempotency_key_reused")
    assert files_in(stored) == files


def test_refused_for_another_rollout_it_leaves_nothing(post, stored):
    join("node1")
    start_rollout(RolloutRequest(action=Action.REMOVE, module_name="TestModule", version=1))
    position = head()
    refused(post(key="k1"), 409, "rollout_in_progress")
    assert (head(), files_in(stored)) == (position, [])


def test_without_nodes_it_is_done_at_once(admin, post):
    uid = post().json()["action_uid"]
    play()
    assert (action(admin, uid)["status"], action(admin, uid)["progress"]) == ("completed", "100")


def test_the_package_of_a_second_platform(admin, post):
    first = post()
    play()
    second = post(machine=AARCH64, architecture="aarch64")
    assert (second.status_code, second.json()["uid"]) == (200, first.json()["uid"])
    assert sorted(admin.get("/v1/modules").json()[0]["platforms"]) == ["linux/aarch64", "linux/x86_64"]


def test_an_object_that_is_there_stays_as_it_is(admin, post):
    admin.post("/v2/modules/user-defined", module_object(author="alice"), format="json")
    response = post(homepage="https://example.com")
    assert (response.status_code, response.json()["author"]) == (200, "alice")


def test_a_package_against_its_object_is_refused(admin, post, stored):
    admin.post("/v2/modules/user-defined", module_object(), format="json")
    position = head()
    refused(post(semantic_version="9.9.9"), 406, "metadata_mismatch")
    assert (head(), files_in(stored)) == (position, [])


def test_another_build_is_refused(post):
    post()
    refused(post(description="another"), 409, "artifact_exists")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        ({}, 400, "no_module"),
        (as_upload(b"x", field="file"), 400, "no_module"),
        (as_upload(b"x"), 400, "invalid_artifact"),
    ],
)
def test_a_missing_or_bad_package_is_refused(admin, stored, data, status, code):
    refused(admin.post(URL, data), status, code)
    assert files_in(stored) == []


def test_bad_metadata_is_refused(post):
    refused(post(commands="none"), 406, "invalid_module")


def test_with_the_gate_closed_even_an_admin_is_refused(post):
    accounts.update_cluster_settings(allow_modules_upload=False)
    refused(post(), 403, "modules_upload_disabled")


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_the_list_is_a_bare_array(admin, post):
    digest = hashlib.sha256(b"d").hexdigest()
    dependencies = {"d": {"url": "https://example.com/d", "sha256": digest}}
    post(version=10203.0, commands=[], dependencies=dependencies, members={"deps/d.tgz": b"d"})
    (listed,) = admin.get("/v1/modules").json()
    assert (listed["version"], listed["is_bundled"]) == (10203, False)
    (platform,) = listed["platforms"].items()
    assert platform[0] == "linux/x86_64"
    assert platform[1].keys() == {"dependencies", "sha256"}
    assert len(platform[1]["sha256"]) == 64
    assert platform[1]["dependencies"].keys() == {"d"}


def test_an_object_without_a_package_has_no_platforms(admin):
    admin.post("/v2/modules/user-defined", module_object(), format="json")
    assert admin.get("/v1/modules").json()[0]["platforms"] == {}


def test_one_module(admin, post):
    post()
    (listed,) = admin.get("/v1/modules").json()
    assert admin.get(f"/v1/modules/{listed['uid']}").json() == listed


def test_an_unknown_module(admin):
    refused(admin.get("/v1/modules/1"), 404, "module_not_found")


@pytest.mark.parametrize("rows", [1, 6])
def test_the_queries_do_not_depend_on_the_rows(admin, post, rows, django_assert_num_queries):
    for each in range(rows):
        post(version=each)
        play()
    with django_assert_num_queries(3):  # the user, the objects, their builds
        assert len(admin.get("/v1/modules").json()) == rows


def test_paths_and_methods(admin):
    refused(admin.put("/v1/modules/1", {}, format="json"), 405, "method_not_allowed")
    refused(admin.post("/v2/modules/1"), 405, "method_not_allowed")
    refused(admin.get("/v2/modules"), 405, "method_not_allowed")
    refused(admin.get("/v1/modules/"), 404, "not_found")


# --- Deletion ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def uid(post):
    for name in ("node1", "node2"):
        join(name)
    uid = post().json()["uid"]
    play()
    return uid


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_deleting_removes_it_everywhere(admin, uid, version):
    response = admin.delete(f"/{version}/modules/{uid}")
    assert response.status_code == 200
    assert response.json().keys() == {"action_uid"}
    assert Module.objects.exists()
    assert play() == 2
    assert action(admin, response.json()["action_uid"])["status"] == "completed"
    assert not Module.objects.exists()
    assert not Build.objects.exists()
    assert admin.get(f"/v1/modules/{uid}").status_code == 404


def test_it_stays_when_a_node_fails(admin, uid):
    def one_fails(operation):
        if operation.node == "node2":
            answer(operation, Phase.FAILED, Reason.UNLOAD_REFUSED, "It exports types.")
        else:
            answer(operation)

    action_uid = admin.delete(f"/v2/modules/{uid}").json()["action_uid"]
    play(one_fails)
    failed = action(admin, action_uid)
    assert (failed["status"], failed["error_message"]) == ("failed", "node2: It exports types.")
    assert Module.objects.exists()
    assert Build.objects.exists()


def test_a_retry_after_a_failure_deletes_it(admin, uid):
    admin.delete(f"/v2/modules/{uid}")
    play(partial(answer, phase=Phase.FAILED, reason=Reason.IO_ERROR))
    admin.delete(f"/v2/modules/{uid}")
    play()
    assert not Module.objects.exists()


def test_it_stays_while_a_draining_node_has_it(admin, uid):
    drain_node("node2")
    admin.delete(f"/v2/modules/{uid}")
    play()
    assert Module.objects.exists()
    assert Build.objects.exists()


def test_deleting_again_joins_the_action_under_way(admin, uid):
    first, again = (admin.delete(f"/v2/modules/{uid}").json() for _ in range(2))
    assert first == again


def test_without_nodes_it_is_deleted(admin, post):
    uid = post().json()["uid"]
    play()
    admin.delete(f"/v2/modules/{uid}")
    play()
    assert not Module.objects.exists()
    assert not Build.objects.exists()


def test_an_object_without_a_package_is_deleted_too(admin):
    uid = admin.post("/v2/modules/user-defined", module_object(), format="json").json()["uid"]
    admin.delete(f"/v2/modules/{uid}")
    play()
    assert not Module.objects.exists()


@pytest.mark.parametrize("path", ["/v1/modules/1", "/v2/modules/1"])
def test_deleting_an_unknown_module(admin, path):
    position = head()
    refused(admin.delete(path), 404, "module_delete_failed")
    assert head() == position


def test_another_rollout_under_way_is_in_the_way(admin, uid):
    start_rollout(RolloutRequest(action=Action.INSTALL, module_name="TestModule", version=1))
    refused(admin.delete(f"/v2/modules/{uid}"), 409, "rollout_in_progress")


def test_rebuilt_equals_live(admin, uid, post):
    admin.delete(f"/v2/modules/{uid}")
    play()
    post(version=2)
    for projection in projections.registered():
        assert projections.check(projection) == []
