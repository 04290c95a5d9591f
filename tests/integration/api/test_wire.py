"""The API behind its real server, as plain clients see it."""

import json
from urllib.parse import urlencode

import pytest

from tests.plugins.cast import basic

pytestmark = pytest.mark.slow

ADMIN = {"Authorization": basic("admin")}
JSON = {"Content-Type": "application/json"}
MEGABYTE = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def _low_limits():
    """Before the module's server starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODFLEET_FAILED_LOGINS_PER_MINUTE", "1")
        patch.setenv("MODFLEET_UPLOADS_PER_MINUTE", "1")
        yield


def test_it_works(server):
    response, body = server.ask("GET", "/v1/cluster", headers=ADMIN)
    assert (response.status, json.loads(body)["name"]) == (200, "modfleet")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v1/cluster", {}, 401),
        ("GET", "/v1/cluster", {"Authorization": "Basic x"}, 401),
        ("GET", "/nothing", {}, 404),
        ("GET", "/v1/cluster/", ADMIN, 404),
        ("DELETE", "/v1/cluster", ADMIN, 405),
        ("PUT", "/v1/cluster", ADMIN | {"Host": "evil.example"}, 400),
    ],
)
def test_an_error_is_json_with_its_length(server, method, path, headers, status):
    response, body = server.ask(method, path, headers=headers)
    assert response.status == status
    assert response.headers["Content-Type"] == "application/json"
    assert int(response.headers["Content-Length"]) == len(body)
    assert json.loads(body).keys() == {"error_code", "description"}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/users", {}, 401),
        ("/v1/users", ADMIN, 415),
        ("/v1/users", ADMIN | JSON, 413),
        ("/nothing", ADMIN, 404),
        ("/v1/cluster", {}, 405),
    ],
)
def test_a_client_that_sends_it_all_sees_why_it_was_refused(server, path, headers, status):
    response, _ = server.ask("POST", path, b"x" * 20 * MEGABYTE, headers)
    assert response.status == status


def test_the_connection_of_a_refused_upload_goes_on(server):
    connection = server.connect()
    for _ in range(2):
        connection.request("POST", "/v1/users", b"x" * 5 * MEGABYTE)
        response = connection.getresponse()
        assert (response.status, response.read()[:14]) == (401, b'{"error_code":')
    connection.close()


def test_who_waits_for_100_continue_is_refused_without_it(server):
    answer = server.send(
        b"POST /v1/users HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_who_waits_for_100_continue_gets_it_once_the_credentials_are_good(server):
    head = (
        "PUT /v1/cluster HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
        f"Content-Type: application/json\r\nAuthorization: {ADMIN['Authorization']}\r\n\r\n"
    )
    answer = server.send(head.encode(), b"{}")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


def test_a_chunked_body(server):
    chunks = iter([b'{"allow_modules_', b'upload": true}'])
    response, body = server.ask("PUT", "/v1/cluster", chunks, ADMIN | JSON, encode_chunked=True)
    assert (response.status, json.loads(body)["allow_modules_upload"]) == (200, True)


@pytest.mark.parametrize(("headers", "status"), [({}, 401), (ADMIN | JSON, 413)])
def test_a_chunked_body_without_end(server, headers, status):
    chunks = (b" " * 65536 for _ in range(200))
    response, _ = server.ask("PUT", "/v1/cluster", chunks, headers, encode_chunked=True)
    assert response.status == status


def test_head(server):
    response, body = server.ask("HEAD", "/v1/cluster", headers=ADMIN)
    assert (response.status, body) == (200, b"")
    assert int(response.headers["Content-Length"]) > 2


def test_options(server):
    response, body = server.ask("OPTIONS", "/v1/cluster")
    assert (response.status, body, response.headers["Allow"]) == (200, b"{}", "GET, PUT, HEAD, OPTIONS")


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /%00 HTTP/1.1",
        b"GET /v1/users/%00 HTTP/1.1",
        b"GET /v1/cluster?x=%00 HTTP/1.1",
        b"GET /%ff%fe HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET //v1//cluster HTTP/1.1",
        b"GET /v1/users/../cluster HTTP/1.1",
        b"GET /v1/users/" + b"9" * 5000 + b" HTTP/1.1",
        b"GET /v1/cluster HTTP/1.1\r\nAuthorization: Basic \xff\xfe",
        b"GET /v1/cluster HTTP/1.1\r\nAuthorization: Bearer \xc3\xa9",
        b"GET /v1/cluster HTTP/1.1\r\nX-Request-ID: \xff",
        b"GET /v1/cluster HTTP/1.1\r\nCookie: sessionid=\xff; csrftoken=\xfe",
        b"PUT /v1/cluster HTTP/1.1\r\nContent-Type: \xff",
        b"PUT /v1/cluster HTTP/1.1\r\nContent-Length: x",
        b"PUT /v1/cluster HTTP/1.1\r\nContent-Length: -1",
        b"\xff\xfe /v1/cluster HTTP/1.1",
    ],
)
def test_malformed_requests_are_the_clients_fault(server, request_line):
    answer = server.send(request_line + b"\r\nHost: 127.0.0.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 4"), answer


def test_who_sends_one_upload_too_many_sees_why(server):
    path, body = "/v2/modules/user-defined/artifacts", b"x" * 20 * MEGABYTE
    answers = [server.ask("POST", path, body, ADMIN)[0] for _ in range(2)]
    assert [each.status for each in answers] == [400, 429]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60


def test_the_admin_sites_form_after_too_many_failures(server):
    cookie = server.ask("GET", "/admin/login/")[0].headers["Set-Cookie"].split(";")[0]
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie}
    form = urlencode({"username": "nobody", "password": "x", "csrfmiddlewaretoken": cookie.split("=")[1]})
    (first, _), (second, page) = (server.ask("POST", "/admin/login/", form, headers) for _ in range(2))
    assert (first.status, second.status) == (200, 429)
    assert b"Too many failed logins" in page
    assert 0 < int(second.headers["Retry-After"]) <= 60
