"""POST /v1/modules, which most scripts use: the vendor's page has the module object as the answer, and only 400."""

import pytest

from artifacts_app.models import Build
from eventstore import head
from modules_app.models import Module
from rollout.models import Operation, Rollout
from tests.plugins.packages import AARCH64, as_upload, files_in, module_object
from tests.plugins.played_nodes import join, play

URL = "/v1/modules"


@pytest.fixture
def post(admin, pack):
    def posted(*, key=None, **changes):
        return admin.post(URL, as_upload(pack(**changes)), headers={"Idempotency-Key": key} if key else None)

    return posted


def test_it_works(admin, post):
    join("node1")
    response = post(version=10203.0)
    document = response.json()
    assert response.status_code == 200
    assert module_object(version=10203).items() <= document.items()
    assert "action_uid" not in document
    assert admin.get(f"{URL}/{document['uid']}").json()["module_name"] == "TestModule"
    (action,) = admin.get("/v1/actions").json()["actions"]
    assert action["status"] == "queued"
    assert play() == 1
    assert admin.get(f"/v1/actions/{action['action_uid']}").json()["status"] == "completed"
    assert {each.activation for each in Operation.objects.all()} == {"files"}


def test_the_same_again_is_the_same_module(post):
    join("node1")
    first, again = post(key="k"), post()
    assert (again.status_code, again.json()) == (200, first.json())
    assert post(key="k").json() == first.json()
    assert Rollout.objects.count() == Build.objects.count() == 1


def test_a_second_platform(admin, post):
    post()
    play()
    assert post(machine=AARCH64, architecture="aarch64").status_code == 200
    assert len(admin.get(URL).json()[0]["platforms"]) == 2


@pytest.mark.parametrize(
    ("before", "changes", "code"),
    [
        (None, {"dependencies": {"json": {}}}, "dependencies_not_supported"),
        (None, {"members": {"deps/jdk.tgz": b"x"}}, "dependencies_not_supported"),
        (None, {"commands": "none"}, "invalid_module"),
        (None, {"dependencies": {"jdk": {"sha256": "0" * 64}}}, "invalid_module"),
        (None, {"sha256": "0" * 64}, "invalid_module"),
        ({}, {"description": "another"}, "module_exists"),
    ],
)
def test_what_is_refused(post, stored, before, changes, code):
    if before is not None:
        post(**before)
    position, files, modules = head(), files_in(stored), Module.objects.count()
    response = post(**changes)
    assert (response.status_code, response.json()["error_code"]) == (400, code)
    assert (head(), files_in(stored), Module.objects.count()) == (position, files, modules)


@pytest.mark.parametrize(
    ("data", "code"),
    [({}, "no_module"), (as_upload(b"x", field="file"), "no_module"), (as_upload(b"x"), "invalid_module")],
)
def test_no_package_is_refused(admin, data, code):
    response = admin.post(URL, data)
    assert (response.status_code, response.json()["error_code"]) == (400, code)
