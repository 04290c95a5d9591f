"""Whatever credentials a request brings to whatever route: no answer is a 500, and every refusal of the API is JSON."""

import base64
from dataclasses import replace

import pytest
from django.urls import URLPattern, get_resolver
from django.urls.resolvers import RoutePattern

from accounts.credentials import remembered
from tests.plugins.cast import basic

METHODS = ("get", "post", "put", "patch", "delete", "options")
FEW = ("get", "post")
VALUES = {"int": "1", "uuid": "0" * 32}


def routes(patterns, before=""):
    for each in patterns:
        if not isinstance(each.pattern, RoutePattern):
            yield before, each  # the admin site's last resort
            continue
        path = before + "".join(
            VALUES.get(type(each.pattern.converters[name]).__name__.removesuffix("Converter").lower(), "x")
            if name in each.pattern.converters
            else part
            for part, name in _parts(str(each.pattern))
        )
        if isinstance(each, URLPattern):
            yield path, each
        else:
            yield from routes(each.url_patterns, path)


def _parts(route):
    """Literal text and parameters of a route, in order; the name of each parameter."""
    for index, part in enumerate(route.replace(">", "<").split("<")):
        yield part, part.rpartition(":")[2] if index % 2 else ""


PATHS = sorted({f"/{path}" for path, _ in routes(get_resolver("config.urls").url_patterns)} | {"/nowhere", "/admin/x/"})
WRONG = [
    "Basic",
    "Basic " + base64.b64encode(b"no colon").decode(),
    "Basic " + base64.b64encode(b"\xff:\xff").decode(),
    "Basic " + base64.b64encode(b"a\0:b").decode(),
    basic("bob", "wrong"),
    "Bearer a.b.c",
    "JWT \xff",
    "\xff",
]


@pytest.fixture
def ask(db, client):
    """Asks every route with every method; an error nobody expected is an answer and no exception."""
    client.raise_request_exception = False

    def asked(methods, **meta):
        for path in PATHS:
            for method in methods:
                response = getattr(client, method)(path, **meta)
                assert response.status_code != 500, f"{method} {path} {meta}: {response.content[:200]}"
                if response.status_code >= 400 and not path.startswith("/admin/"):
                    assert set(response.json()) == {"error_code", "description"}, f"{method} {path} {meta}"
                yield path, response

    return asked


def test_there_are_all_kinds_of_routes():
    assert {"/docs", "/schema", "/metrics", "/admin/", "/admin/login/", "/v2/rollouts/x"} <= set(PATHS)
    assert len(PATHS) > 60


@pytest.mark.slow
def test_no_credentials(ask):
    assert list(ask(METHODS))


@pytest.mark.slow
@pytest.mark.parametrize("header", WRONG, ids=ascii)
def test_wrong_or_malformed_credentials(ask, header):
    assert list(ask(FEW, HTTP_AUTHORIZATION=header))


@pytest.mark.slow
@pytest.mark.parametrize("cookie", ["sessionid=" + "x" * 32, "sessionid=\xff; csrftoken="], ids=ascii)
def test_a_session_that_never_was(ask, cookie):
    assert list(ask(FEW, HTTP_COOKIE=cookie))


@pytest.mark.slow
@pytest.mark.parametrize("login", ["bob", "nobody"])
def test_throttled_credentials(ask, bob, settings, login):
    limits = {"failed_logins_per_minute": 1, "failed_logins_per_address_per_minute": 1}
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, **limits)
    remembered.clear()
    statuses = {path: response.status_code for path, response in ask(FEW, HTTP_AUTHORIZATION=basic(login, "wrong"))}
    assert statuses["/docs"] == statuses["/v2/nodes"] == 429


@pytest.mark.slow
def test_too_many_requests(ask, bob, settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, requests_per_minute=1)
    statuses = {path: response.status_code for path, response in ask(FEW, HTTP_AUTHORIZATION=basic("bob"))}
    assert statuses["/docs"] == statuses["/v2/nodes"] == 429
