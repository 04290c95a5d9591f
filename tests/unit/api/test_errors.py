"""Exceptions to answers."""

import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions

from api.errors import (
    ApiError,
    ConflictError,
    InvalidRequestError,
    Kind,
    StorageFullError,
    TooManyRequestsError,
    UnauthenticatedError,
)
from api.handlers import handle_exception
from api.statuses import STATUSES, status_of
from eventstore import ConcurrencyError


class TeapotError(ApiError):
    """I am a teapot."""

    kind = Kind.GONE
    code = "teapot"


@pytest.mark.parametrize(
    ("exception", "status", "code", "description"),
    [
        (TeapotError(), 410, "teapot", "I am a teapot."),
        (TeapotError("short and stout"), 410, "teapot", "short and stout"),
        (InvalidRequestError(), 400, "invalid_request", "The request is malformed."),
        (ConcurrencyError("x"), 409, "conflict", "Another request was first: try again."),
        (Http404(), 404, "not_found", "There is no such object."),
        (PermissionDenied(), 403, "permission_denied", "Your role does not allow this."),
        (exceptions.NotFound(), 404, "not_found", "Not found."),
        (exceptions.MethodNotAllowed("PUT"), 405, "method_not_allowed", 'Method "PUT" not allowed.'),
        (exceptions.ParseError("what?"), 400, "invalid_request", "what?"),
        (exceptions.ValidationError("no"), 400, "invalid_request", "no"),
        (exceptions.ValidationError({"a": ["b", "c"]}), 400, "invalid_request", "a: b; a: c"),
        (
            exceptions.ValidationError({"a": [{}, {"b": ["c"]}], "non_field_errors": ["d"]}),
            400,
            "invalid_request",
            "a[1].b: c; d",
        ),
    ],
)
def test_it_works(exception, status, code, description):
    response = handle_exception(exception, {})
    assert response
    assert (response.status_code, response.data) == (status, {"error_code": code, "description": description})


def test_each_kind_has_a_status_of_its_own():
    assert set(STATUSES) == set(Kind)
    assert len(set(STATUSES.values())) == len(STATUSES)


@pytest.mark.parametrize(("error", "seconds"), [(StorageFullError(), "60"), (TooManyRequestsError(seconds=1.2), "2")])
def test_when_to_repeat_a_request(error, seconds):
    response = handle_exception(error, {})
    assert response
    assert response["Retry-After"] == seconds


def test_a_challenge():
    response = handle_exception(UnauthenticatedError(), {})
    assert response
    assert response["WWW-Authenticate"].startswith("Basic ")


def test_wait_a_while():
    response = handle_exception(exceptions.Throttled(wait=7.2), {})
    assert response
    assert (response.status_code, response["Retry-After"]) == (429, "8")
    assert response.data["error_code"] == "too_many_requests"


def test_what_nobody_expected_is_left_to_django():
    assert handle_exception(RuntimeError(), {}) is None


def test_a_subclass_may_change_the_code_alone():
    class OtherError(ConflictError):
        """Other."""

        code = "other"

    assert (status_of(OtherError), OtherError().code, str(OtherError())) == (409, "other", "Other.")
