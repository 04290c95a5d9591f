"""GET /v2/modules/user-defined/artifacts and .../{module_name}/{version}; DELETE of the latter."""

import pytest

from artifacts_app.models import Build
from eventstore import head, load
from rollout.domain.request import RolloutRequest
from rollout.messages import Action, Activation
from rollout.services.start import start_rollout
from tests.plugins.packages import AARCH64, ARTIFACTS, as_upload, files_in, module_object
from tests.plugins.played_nodes import installed, join, play

ONE = f"{ARTIFACTS}/TestModule/1"


@pytest.fixture
def upload(admin, pack):
    def uploaded(**changes):
        response = admin.post(ARTIFACTS, as_upload(pack(**changes)))
        assert response.status_code == 201
        return response.json()

    return uploaded


def refused(response, status, code):
    assert (response.status_code, response.json()["error_code"]) == (status, code)
    return response.json()["description"]


def test_it_works(admin, upload):
    uploaded = upload()
    response = admin.get(ONE)
    assert (response.status_code, response.json()) == (200, uploaded)


@pytest.mark.parametrize("path", ["TestModule/2", "unknown/1", "a:b/1"])
@pytest.mark.parametrize("method", ["get", "delete"])
def test_an_unknown_artifact(admin, upload, method, path):
    upload()
    refused(getattr(admin, method)(f"{ARTIFACTS}/{path}"), 404, "artifact_not_found")


@pytest.mark.parametrize("version", ["1.0.0", "x", "-1", "1e3", "99999999999", "%D9%A1", " 1"])
@pytest.mark.parametrize("method", ["get", "delete"])
def test_a_version_that_is_no_whole_number(admin, method, version):
    refused(getattr(admin, method)(f"{ARTIFACTS}/TestModule/{version}"), 404, "not_found")


def test_the_list_comes_in_pages(admin, upload):
    for name, version in (("b", 1), ("a", 2), ("a", 10), ("c", 1)):
        upload(module_name=name, version=version)
    upload(module_name="a", version=2, machine=AARCH64)
    first = admin.get(ARTIFACTS, {"limit": 2}).json()
    second = admin.get(first["next"]).json()
    pages = first["results"], second["results"]
    assert [[(each["module_name"], each["version"]) for each in page] for page in pages] == [
        [("a", 2), ("a", 10)],
        [("b", 1), ("c", 1)],
    ]
    assert [len(each["builds"]) for each in first["results"]] == [2, 1]
    assert second["next"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "cursor=x"])
def test_a_bad_page_is_refused(admin, query):
    refused(admin.get(f"{ARTIFACTS}?{query}"), 400, "invalid_request")


@pytest.mark.parametrize("rows", [1, 6])
def test_the_queries_do_not_depend_on_the_rows(admin, upload, rows, django_assert_num_queries):
    for each in range(rows):
        upload(version=each)
        upload(version=each, machine=AARCH64)
    with django_assert_num_queries(3):  # the user, the versions of the page, their builds
        assert len(admin.get(ARTIFACTS).json()["results"]) == rows


def test_deleting_it(admin, upload, stored):
    upload()
    response = admin.delete(ONE)
    assert (response.status_code, response.content) == (200, b"{}")
    assert not Build.objects.exists()
    refused(admin.delete(ONE), 404, "artifact_not_found")
    assert len(files_in(stored)) == 1  # swept later


def test_deleted_it_may_be_uploaded_with_other_content(admin, upload):
    upload()
    admin.delete(ONE)
    upload(description="another", semantic_version="9.9.9")
    assert [each.type for each in load("artifact:TestModule:1")] == [
        "artifact.uploaded.v1",
        "artifact.deleted.v1",
        "artifact.uploaded.v1",
    ]


def test_deleted_it_contradicts_nothing_any_more(admin, upload):
    upload()
    admin.delete(ONE)
    body = module_object(semantic_version="9.9.9")
    assert admin.post("/v2/modules/user-defined", body, format="json").status_code == 200


def test_what_a_node_has_is_in_use(admin, upload):
    upload()
    join("node1", installed("TestModule", 1))
    position = head()
    assert refused(admin.delete(ONE), 409, "artifact_in_use").startswith("node1 have TestModule 1")
    assert head() == position


def test_what_a_node_is_to_get_is_in_use(admin, upload):
    upload()
    join("node1")
    install = RolloutRequest(
        action=Action.INSTALL, module_name="TestModule", version=1, activation=Activation.FILES, nodes=("node1",)
    )
    start_rollout(install)
    refused(admin.delete(ONE), 409, "artifact_in_use")


def test_what_was_removed_from_its_nodes_is_free(admin, upload):
    upload()
    join("node1", installed("TestModule", 1))
    start_rollout(RolloutRequest(action=Action.REMOVE, module_name="TestModule", version=1, nodes=("node1",)))
    assert play() == 1
    assert admin.delete(ONE).status_code == 200


def test_another_version_is_not_in_use(admin, upload):
    upload()
    join("node1", installed("TestModule", 2))
    assert admin.delete(ONE).status_code == 200


def test_paths_and_methods(admin):
    assert admin.get(f"{ARTIFACTS}/").status_code == 404
    assert admin.put(ARTIFACTS).status_code == 405
    assert admin.post(ONE).status_code == 405
    assert admin.options(ONE)["Allow"] == "GET, DELETE, HEAD, OPTIONS"
