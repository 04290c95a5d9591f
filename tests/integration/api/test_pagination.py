"""Pages of a list."""

import pytest
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from accounts.models import User
from accounts.permissions import Access
from api.pagination import paginate


class Names(APIView):
    permissions = {"GET": Access.PUBLIC}
    key = "uid"

    def get(self, request) -> Response:
        return paginate(
            request, User.objects.all(), key=self.key, serialize=lambda rows: [each.username for each in rows]
        )


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


@pytest.mark.parametrize("key", ["uid", "-uid", "username", "-username"])
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_page_by_page_it_is_the_whole_list(five, key, limit):
    seen, url = [], f"/names?limit={limit}&other=x"
    while url:
        page = get(url, key=key).data
        assert len(page["results"]) <= limit
        seen += page["results"]
        url = page["next"]
        assert url is None or (url.startswith("http://testserver/names?") and "other=x" in url)
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
