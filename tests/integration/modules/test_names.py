"""Two modules whose names differ only in case are one to a server: the second is refused, wherever it comes in."""

import pytest

from artifacts_app.models import Build
from artifacts_app.selectors import refuse_other_spelling
from eventstore import Append, ConcurrencyError, append, head
from modules_app.events import ModuleRegistered, module_stream
from modules_app.models import Module
from modules_app.services import delete_module, module_uid, register_module
from tests.plugins.databases import at_once
from tests.plugins.packages import ARTIFACTS, as_upload, files_in, module_object
from tests.recorded_fleet import upload

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


def an_object(name):
    uid, document = module_uid(name, 7), {"module_name": name, "version": 7, "commands": []}
    return Append(module_stream(uid), 0, [ModuleRegistered(uid=uid, module_name=name, version=7, document=document)])


@pytest.mark.parametrize("first", ["an object", "a build"])
@pytest.mark.parametrize("second", ["an object", "a build"])
@pytest.mark.parametrize("route", ROUTES)
def test_each_spelling_that_an_older_log_has_stays_allowed(ways, route, first, second):
    for kind, name in ((first, "Search"), (second, "search")):
        append(an_object(name)) if kind == "an object" else upload(name, 7)
    for name in ("Search", "search"):
        assert ways[route](name).status_code in {200, 201}
    response = ways[route]("SEARCH")
    assert (response.status_code, response.json()["error_code"]) == (406, "module_name_taken")


def test_a_spelling_that_goes_meanwhile_is_not_there(ways):
    append(an_object("Search"), an_object("search"))
    unless = refuse_other_spelling("search")
    delete_module(module_uid("search", 7))
    with pytest.raises(ConcurrencyError):
        append(an_object("other"), unless=[unless])


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
