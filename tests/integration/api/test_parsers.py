"""Bodies of JSON requests."""

import pytest
from rest_framework.test import APIRequestFactory, force_authenticate
from rest_framework.views import APIView

from accounts.permissions import Access
from api.errors import NotAcceptableError
from api.parsers import MAX_BYTES
from tests.plugins.cast import client_of

URL = "/v1/cluster"


def put(user, body: bytes, content_type: str = "application/json"):
    return client_of(user).put(URL, body, content_type=content_type)


def test_it_works(alice):
    assert put(alice, '{"name": "münchen"}'.encode()).json()["name"] == "münchen"


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "utf8"])
def test_utf_8_by_any_name(alice, charset):
    assert put(alice, b"{}", f"application/json; charset={charset}").status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=latin-1",
        "application/json; charset=bz2_codec",
        "application/json; charset=nonsense",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "nonsense",
    ],
)
def test_anything_else(alice, content_type):
    response = put(alice, b"{}", content_type)
    assert (response.status_code, response.json()["error_code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"{'name': 1}",
        b'{"name": NaN}',
        b'{"name": 1e999}',
        b'{"name": "x", "name": "y"}',
        b'{"name": "\\ud800"}',
        b'{"name": "\\u0000"}',
        b"[" * 100_000,
        b"9" * 5000,
        b"[" * 40 + b"]" * 40,
    ],
)
def test_no_json(alice, body):
    response = put(alice, body)
    assert (response.status_code, response.json()["error_code"]) == (400, "invalid_request")


def test_too_large(alice):
    response = put(alice, b" " * (MAX_BYTES + 1))
    assert (response.status_code, response.json()["error_code"]) == (413, "payload_too_large")


def test_as_large_as_may_be(alice):
    assert put(alice, b"{}" + b" " * (MAX_BYTES - 2)).status_code == 200


def test_a_view_names_its_own_error(bob):
    class InvalidModuleError(NotAcceptableError):
        """The module is invalid."""

        code = "invalid_module"

    class Modules(APIView):
        permissions = {"POST": Access.PUBLIC}
        invalid_json = InvalidModuleError

        def post(self, request):
            return request.data

    request = APIRequestFactory().post("/", b"{", content_type="application/json")
    force_authenticate(request, bob)
    response = Modules.as_view()(request)
    assert (response.status_code, response.data["error_code"]) == (406, "invalid_module")
