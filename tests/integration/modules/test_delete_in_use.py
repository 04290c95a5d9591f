"""A module that nodes have loaded is not deleted: each way of deleting refuses, or removes it from them first."""

import pytest

from artifacts_app.models import Build
from modules_app.errors import ModuleInUseError
from modules_app.models import Module
from modules_app.services import delete_module, module_uid
from modules_app.vetoes import Vetoes
from rollout.domain.request import AT_ONCE, RolloutRequest
from rollout.messages import Action, Activation
from rollout.models import NodeModule
from rollout.process.advance import advance
from rollout.queries.modules import refuse_if_loaded
from rollout.services.start import start_rollout
from tests.plugins.packages import ARTIFACTS, LOCAL, as_upload
from tests.plugins.played_nodes import join, play

OBJECT = f"/v2/modules/user-defined/{module_uid('TestModule', 1)}"


@pytest.fixture(autouse=True)
def uploaded(admin, pack, storage):
    join("node1", api_hosts=("testserver",))
    join("node2")
    assert admin.post("/v2/modules", as_upload(pack())).status_code == 200
    play()


def roll_out(action=Action.INSTALL, **more):
    request = RolloutRequest(action=action, module_name="TestModule", version=1, strategy=AT_ONCE, **more)
    return start_rollout(request)


def refused(response, status, code):
    assert (response.status_code, response.json()["error_code"]) == (status, code)
    return response.json()["description"]


def test_loaded_it_is_refused(admin):
    roll_out(nodes=("node2",))
    play()
    assert "node2 have loaded TestModule 1" in refused(admin.delete(OBJECT), 406, "module_in_use")
    assert Module.objects.exists()


def test_about_to_be_loaded_it_is_refused(admin):
    uid = roll_out(nodes=("node2",))
    refused(admin.delete(OBJECT), 406, "module_in_use")
    advance(uid)
    refused(admin.delete(OBJECT), 406, "module_in_use")


def test_unloaded_it_is_deleted(admin):
    for action in (Action.INSTALL, Action.REMOVE):
        roll_out(action)
        play()
    assert admin.delete(OBJECT).status_code == 200


def test_as_files_alone_it_is_deleted_first_as_the_vendors_page_has_it(admin):
    assert {row.observed for row in NodeModule.objects.all()} == {Activation.FILES}
    assert admin.delete(OBJECT).status_code == 200
    assert not Module.objects.exists()


def test_the_other_ways_of_deleting(admin):
    roll_out()
    play()
    refused(admin.delete(f"{LOCAL}/TestModule/1"), 406, "module_in_use")
    refused(admin.delete(f"{ARTIFACTS}/TestModule/1"), 409, "artifact_in_use")
    for path in ("/v1/modules", "/v2/modules"):
        assert admin.delete(f"{path}/{module_uid('TestModule', 1)}").status_code == 200
    assert play() == 2
    assert not Module.objects.exists()
    assert not Build.objects.exists()


def test_a_rollout_that_starts_meanwhile_is_seen(monkeypatch):
    """The first look finds nothing, and what it has read does not hold any more."""
    first: list[str] = []

    def veto(name, version):
        unused = refuse_if_loaded(name, version)
        if not first:
            first.append(roll_out(nodes=("node1",)))
        return unused

    vetoes: Vetoes[[str, int]] = Vetoes()
    vetoes.register(veto)
    monkeypatch.setattr("modules_app.services.DELETION", vetoes)
    with pytest.raises(ModuleInUseError):
        delete_module(module_uid("TestModule", 1))
    assert Module.objects.exists()
