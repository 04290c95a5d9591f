"""DELETE /v2/modules/user-defined/{uid}: a row of the vendor's table of status codes each."""

import pytest

from accounts import services as accounts
from eventstore import head
from modules_app.models import Module
from tests.plugins.packages import ARTIFACTS, as_upload, module_object

URL = "/v2/modules/user-defined"


@pytest.fixture
def uid(admin):
    return admin.post(URL, module_object(), format="json").json()["uid"]


def test_it_works(admin, uid):
    response = admin.delete(f"{URL}/{uid}")
    assert (response.status_code, response.content, response["Content-Length"]) == (200, b"{}", "2")
    assert not Module.objects.exists()


@pytest.mark.parametrize("unknown", ["1", "1952fcf9a5109fb59e61b1ad4d7e2d88", "a:b", "x" * 300, "%F0%9F%A6%80"])
def test_an_unknown_uid_is_refused(admin, uid, unknown):
    position = head()
    response = admin.delete(f"{URL}/{unknown}")
    assert (response.status_code, response.json()["error_code"]) == (404, "module_delete_failed")
    assert head() == position


def test_deleting_twice_is_refused(admin, uid):
    admin.delete(f"{URL}/{uid}")
    assert admin.delete(f"{URL}/{uid}").status_code == 404


def test_the_gate_does_not_matter(admin, uid):
    accounts.update_cluster_settings(allow_modules_upload=False)
    assert admin.delete(f"{URL}/{uid}").status_code == 200


def test_the_artifact_stays(admin, uid, pack, storage):
    admin.post(ARTIFACTS, as_upload(pack()))
    admin.delete(f"{URL}/{uid}")
    assert admin.get(f"{ARTIFACTS}/TestModule/1").status_code == 200
