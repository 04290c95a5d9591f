"""DELETE /v2/local/modules/user-defined/artifacts/{module_name}/{version}: a row of the vendor's table each."""

from dataclasses import replace
from functools import partial

import pytest

from accounts import services as accounts
from eventstore import head
from rollout.messages import Phase, Reason
from rollout.models import Rollout
from tests.plugins.packages import ARTIFACTS, LOCAL, as_upload, module_object
from tests.plugins.played_nodes import answer, installed, join, playing

URL = f"{LOCAL}/TestModule/1"


@pytest.fixture
def node(committed_db, named, settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, local_wait_seconds=10)
    join("node1", installed("TestModule", 1))
    named("node1")


def refused(response, status, code):
    assert (response.status_code, response.json()["error_code"]) == (status, code)
    return response.json()["description"]


def test_it_works(committed_admin, node, pack):
    committed_admin.post(ARTIFACTS, as_upload(pack()))
    with playing():
        response = committed_admin.delete(URL)
    assert (response.status_code, response.content) == (200, b"{}")
    assert committed_admin.get(LOCAL).json() == []
    assert committed_admin.get(f"{ARTIFACTS}/TestModule/1").status_code == 200


def test_deleting_twice_is_refused(committed_admin, node):
    with playing():
        committed_admin.delete(URL)
        refused(committed_admin.delete(URL), 404, "module_delete_failed")


@pytest.mark.parametrize("path", ["TestModule/2", "unknown/1", "a:b/1"])
def test_what_is_not_on_the_node_is_not_found(committed_admin, node, path):
    position = head()
    refused(committed_admin.delete(f"{LOCAL}/{path}"), 404, "module_delete_failed")
    assert head() == position


@pytest.mark.parametrize("version", ["1.0.0", "x", "-1", "1e3", "99999999999", "%D9%A1"])
def test_a_version_that_is_no_whole_number_is_not_found(committed_admin, node, version):
    refused(committed_admin.delete(f"{LOCAL}/TestModule/{version}"), 404, "not_found")


def test_a_loaded_module_is_in_use(committed_admin, node):
    join("node1", installed("TestModule", 1, loaded=True))
    position = head()
    refused(committed_admin.delete(URL), 406, "module_in_use")
    assert head() == position


def test_a_node_that_refuses_gives_its_reason(committed_admin, node):
    with playing(partial(answer, phase=Phase.FAILED, reason=Reason.MODULE_NOT_OURS, message="Not ours.")):
        assert refused(committed_admin.delete(URL), 406, "module_not_ours") == "Not ours."


def test_a_node_that_does_not_answer_and_a_retry(committed_admin, node, settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, local_wait_seconds=0.2)
    refused(committed_admin.delete(URL), 503, "node_unreachable")
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, local_wait_seconds=10)
    with playing():
        assert committed_admin.delete(URL).status_code == 200
    assert Rollout.objects.count() == 1


def test_an_installation_under_way_is_not_joined(committed_admin, node, settings, pack):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, local_wait_seconds=0.2)
    committed_admin.post(LOCAL, as_upload(pack()))
    refused(committed_admin.delete(URL), 406, "rollout_in_progress")


def test_the_gate_does_not_matter(committed_admin, node):
    accounts.update_cluster_settings(allow_modules_upload=False)
    with playing():
        assert committed_admin.delete(URL).status_code == 200


def test_the_module_object_stays(committed_admin, node):
    committed_admin.post("/v2/modules/user-defined", module_object(), format="json")
    with playing():
        committed_admin.delete(URL)
    assert len(committed_admin.get("/v2/modules/user-defined").json()["results"]) == 1
