"""What holds for every request."""

import logging
from dataclasses import asdict

import pytest
from django.test import Client
from rest_framework.test import APIClient

from accounts import selectors
from eventstore import SYSTEM, current_actor, current_metadata, current_request
from tests.plugins.cast import client_of

URL = "/v1/cluster"


def test_it_works(bob):
    response = client_of(bob).get(URL)
    assert len(response["X-Request-ID"]) == 32
    assert int(response["Content-Length"]) == len(response.content)


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2_3", True), ("x" * 65, False), ("a b", False), ("é", False)])
def test_a_request_id_of_the_client(bob, given, kept):
    response = client_of(bob).get(URL, headers={"X-Request-ID": given})
    assert (response["X-Request-ID"] == given) == kept


def test_it_is_recorded_and_the_actor_too(bob, monkeypatch):
    seen = {}
    monkeypatch.setattr(selectors, "cluster", lambda: seen.update(asdict(current_metadata())))
    client_of(bob).get(URL, headers={"X-Request-ID": "r1"})
    assert seen == {"actor": "user:bob", "requested_by": "user:bob", "correlation_id": "r1", "causation_id": ""}
    assert (current_actor(), current_request()) == (SYSTEM, "")


@pytest.mark.parametrize("path", ["/nothing", "/v1/cluster/", "/%ff", "/v1/users/%2e%2e", "/é", "//"])
def test_no_such_path(db, path):
    response = Client().get(path)
    assert response.status_code == 404
    assert response.json()["error_code"] == "not_found"
    assert int(response["Content-Length"]) == len(response.content)


@pytest.mark.parametrize("path", ["/%00", "/v1/cluster?a=%00", "/v1/users/%00"])
def test_nul(db, path):
    response = Client().get(path)
    assert (response.status_code, response.json()["error_code"]) == (400, "invalid_request")


def test_a_query_that_is_not_utf_8(bob):
    assert client_of(bob).get(URL, QUERY_STRING="a=%ff%fe").status_code == 200


def test_a_foreign_host(db):
    response = Client().get(URL, headers={"host": "evil.example"})
    assert (response.status_code, response.json()["error_code"]) == (400, "invalid_request")
    assert "Host" in response.json()["description"]
    assert response["X-Request-ID"]


def test_an_error_that_nobody_expected(bob, monkeypatch, caplog):
    monkeypatch.setattr(selectors, "cluster", lambda: 1 / 0)
    client = client_of(bob)
    client.raise_request_exception = False
    with caplog.at_level(logging.ERROR):
        response = client.get(URL, headers={"X-Request-ID": "r1"})
    assert (response.status_code, response.json()["error_code"]) == (500, "internal_error")
    assert response["X-Request-ID"] == "r1"
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "nonsense", "", "*/*", "application/json;v=9"])
def test_json_whatever_is_accepted(bob, accept):
    response = client_of(bob).get(URL, headers={"accept": accept})
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")


def test_options(db):
    response = APIClient().options(URL)
    assert (response.status_code, response.json()) == (200, {})
    assert response["Allow"] == "GET, PUT, HEAD, OPTIONS"


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "TRACE", "PROPFIND"])
def test_a_method_that_there_is_not(db, method):
    response = APIClient().generic(method, URL)
    assert (response.status_code, response.json()["error_code"]) == (405, "method_not_allowed")
