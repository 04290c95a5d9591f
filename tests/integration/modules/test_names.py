"""Two modules whose names differ only in case are one to a server: the second is refused, wherever it comes in."""

import pytest

from artifacts_app.models import Build
from eventstore.store import head
from modules_app.models import Module
from modules_app.services import register_module
from tests.plugins.databases import at_once
from tests.plugins.packages import ARTIFACTS, as_upload, files_in, module_object

OBJECTS = "/v2/modules/user-defined"


@pytest.fixture(autouse=True)
def stored(storage):
    return storage


@pytest.fixture
def ways(admin, pack):
    """The calls by which a module comes in, by route."""
    return {
        OBJECTS: lambda name: admin.post(OBJECTS, module_object(module_name=name), format="json"),
        ARTIFACTS: lambda name: admin.post(ARTIFACTS, as_upload(pack(module_name=name))),
        "/v2/modules": lambda name: admin.post("/v2/modules", as_upload(pack(module_name=name))),
    }


pytestmark = pytest.mark.dialect
ROUTES = (OBJECTS, ARTIFACTS, "/v2/modules")


@pytest.mark.parametrize("first", ROUTES)
@pytest.mark.parametrize("second", ROUTES)
def test_another_spelling_is_refused(ways, stored, first, second):
    assert ways[first]("Search").status_code in {200, 201}
    position, files = head(), files_in(stored)
    response = ways[second]("search")
    assert (response.status_code, response.json()["error_code"]) == (406, "module_name_taken")
    assert "Search" in response.json()["description"]
    assert (head(), files_in(stored)) == (position, files)


def test_another_version_is_refused_too(ways, admin):
    ways[OBJECTS]("Search")
    body = module_object(module_name="SEARCH", version=2)
    assert admin.post(OBJECTS, body, format="json").json()["error_code"] == "module_name_taken"


@pytest.mark.parametrize("other", ["Searchx", "Sear_h", "S"])
def test_any_other_name_is_not(ways, other):
    ways[OBJECTS]("Search")
    assert ways[OBJECTS](other).status_code == 200


def test_a_name_is_free_again_once_nothing_has_it(ways, admin):
    uid = ways[OBJECTS]("Search").json()["uid"]
    admin.delete(f"{OBJECTS}/{uid}")
    assert ways[OBJECTS]("search").status_code == 200


def test_of_two_at_once_one_comes_in(committed_db):
    def register(name):
        def registered():
            try:
                return register_module(module_object(module_name=name))
            except Exception as error:  # noqa: BLE001  # what it was is asserted
                return error

        return registered

    for number in range(10):
        outcomes = at_once(register(f"m{number}"), register(f"M{number}"))
        assert [type(each).__name__ for each in outcomes if not isinstance(each, str)] == ["ModuleNameTakenError"]
    assert Module.objects.count() == 10
    assert not Build.objects.exists()
