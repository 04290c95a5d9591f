"""Pages of a list."""

import django_filters
import pytest
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from accounts.models import User
from accounts.permissions import Access
from accounts.roles import Role
from api.filters import MomentFilter, TextFilter, TruthFilter, WholeNumberFilter, WordsFilter
from api.pagination import Listing, paginate


class NameFilters(django_filters.FilterSet):
    role = WordsFilter(Role, field_name="role")
    uid = WholeNumberFilter(field_name="uid")
    active = TruthFilter(field_name="is_active")
    issued_before = MomentFilter(field_name="password_issued_at", lookup_expr="lt")
    name = TextFilter(field_name="username")


NAMES = Listing(
    orders={"uid": ("uid",), "username": ("username",), "role": ("role", "uid")}, default="uid", filters=NameFilters
)


class Names(APIView):
    permissions = {"GET": Access.PUBLIC}

    def get(self, request) -> Response:
        return paginate(request, User.objects.all(), NAMES, serialize=lambda rows: [each.username for each in rows])


def get(url: str = "/names", **settings) -> Response:
    return Names.as_view(**settings)(APIRequestFactory().get(url))


@pytest.fixture
def five(new_user) -> list[str]:
    names = ["ann", "ben", "cid", "dot", "eve"]
    for name in names:
        new_user(name, "db_viewer")
    return names


def test_it_works(five):
    response = get()
    assert response.data == {"results": five, "next": None}


@pytest.mark.parametrize("key", ["uid", "-uid", "username", "-username", "role", "-role"])
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_page_by_page_it_is_the_whole_list(five, key, limit):
    seen, url = [], f"/names?limit={limit}&ordering={key}"
    while url:
        page = get(url).data
        assert len(page["results"]) <= limit
        seen += page["results"]
        url = page["next"]
        assert url is None or (url.startswith("http://testserver/names?") and f"ordering={key}" in url)
    assert seen == (five[::-1] if key.startswith("-") else five)


def test_what_comes_meanwhile_is_neither_lost_nor_repeated(five, new_user):
    first = get("/names?limit=4").data
    User.objects.filter(username="ann").delete()
    new_user("fay", "db_viewer")
    assert get(first["next"]).data["results"] == ["eve", "fay"]


def test_a_page_is_one_query(five, django_assert_num_queries):
    with django_assert_num_queries(1):
        get("/names?limit=2")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "1.0", "٣", "9" * 5000])
def test_a_limit_that_is_none(db, limit):
    response = get(f"/names?limit={limit}")
    assert (response.status_code, response.data["error_code"]) == (400, "invalid_request")
    assert response.data["description"].startswith("limit: ")


@pytest.mark.parametrize("cursor", ["", "x", "a:b:c", "1", "é"])
def test_a_cursor_that_is_none(db, cursor):
    response = get(f"/names?cursor={cursor}")
    assert response.status_code == 400
    assert response.data["description"].startswith("cursor: ")


def test_a_cursor_of_another_list(five):
    following = get("/names?limit=1").data["next"].replace("/names", "/others")
    assert get(following).status_code == 400


def test_a_cursor_of_another_ordering(five):
    following = get("/names?limit=1").data["next"] + "&ordering=username"
    response = get(following)
    assert (response.status_code, response.data["error_code"]) == (400, "invalid_request")
    assert response.data["description"].startswith("cursor: it is for the ordering uid.")


@pytest.mark.parametrize(
    "query",
    [
        "other=x",
        "ordering=password",
        "ordering=",
        "role=king",
        "role=",
        "uid=x",
        "uid=1.5",
        "active=1",
        "issued_before=now",
    ],
)
def test_what_the_list_does_not_know_is_refused_by_its_name(db, query):
    response = get(f"/names?{query}")
    assert (response.status_code, response.data["error_code"]) == (400, "invalid_request")
    assert response.data["description"].startswith(f"{query.partition('=')[0]}: ")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("role=admin", ["ann"]),
        ("role=admin&role=db_viewer&limit=3", ["ann", "ben", "cid"]),
        ("active=false", []),
        ("name=cid", ["cid"]),
        ("issued_before=2026-01-01T00:00:00Z", []),
        ("active=true&issued_before=2999-01-01T01:00:00%2B01:00&ordering=-username&limit=2", ["eve", "dot"]),
    ],
)
def test_filters_narrow_it(five, query, names):
    User.objects.filter(username="ann").update(role="admin")
    assert get(f"/names?{query}").data["results"] == names
