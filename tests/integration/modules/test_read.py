"""GET /v2/modules/user-defined and /{uid}; what every path of it answers."""

import pytest

from eventstore import projections
from modules_app.services import delete_module, register_module
from tests.plugins.packages import module_object

URL = "/v2/modules/user-defined"


def register(*versions):
    return [register_module(module_object(version=each)) for each in versions]


def test_it_works(admin):
    (uid,) = register(10203)
    response = admin.get(f"{URL}/{uid}")
    assert (response.status_code, response.json()["uid"], response.json()["version"]) == (200, uid, 10203)


def test_an_unknown_uid(admin):
    response = admin.get(f"{URL}/1")
    assert (response.status_code, response.json()["error_code"]) == (404, "module_not_found")


def test_the_list_comes_in_pages(admin):
    register(3, 1, 2)
    register_module(module_object(module_name="Another", version=9))
    first = admin.get(URL, {"limit": 3}).json()
    second = admin.get(first["next"]).json()
    assert [each["version"] for each in first["results"] + second["results"]] == [9, 1, 2, 3]
    assert second["next"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "cursor=x"])
def test_a_bad_page_is_refused(admin, query):
    response = admin.get(f"{URL}?{query}")
    assert (response.status_code, response.json()["error_code"]) == (400, "invalid_request")


@pytest.mark.parametrize("rows", [1, 8])
def test_the_queries_do_not_depend_on_the_rows(admin, rows, django_assert_num_queries):
    register(*range(rows))
    admin.get(URL)
    with django_assert_num_queries(2):  # the user, the page
        assert len(admin.get(URL).json()["results"]) == rows


@pytest.mark.parametrize("path", [f"{URL}/", f"{URL}/1/", f"{URL}/1/2", f"{URL}/artifacts/", "/v2/modules/"])
def test_a_trailing_slash_leads_nowhere(admin, path):
    for method in (admin.get, admin.post, admin.delete):
        response = method(path)
        assert (response.status_code, response.json()["error_code"]) == (404, "not_found")


@pytest.mark.parametrize(("method", "path"), [("put", URL), ("patch", URL), ("delete", URL), ("post", f"{URL}/1")])
def test_other_methods_are_refused(admin, method, path):
    response = getattr(admin, method)(path)
    assert (response.status_code, response.json()["error_code"]) == (405, "method_not_allowed")
    assert "GET" in response["Allow"]


def test_head_and_options(admin):
    got, headed = admin.get(URL), admin.head(URL)
    assert (headed.status_code, headed["Content-Length"]) == (200, got["Content-Length"])
    options = admin.options(URL)
    assert (options.status_code, options["Allow"]) == (200, "GET, POST, HEAD, OPTIONS")
    assert options.content


def test_rebuilt_equals_live(db):
    first, _ = register(1, 2)
    delete_module(first)
    register_module(module_object(display_name="another"))
    for projection in projections.registered():
        assert projections.check(projection) == []
