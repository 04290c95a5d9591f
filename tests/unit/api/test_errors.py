"""Exceptions to answers."""

import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions

from api.errors import ApiError, ConflictError, InvalidRequestError, UnauthenticatedError
from api.handlers import handle_exception
from eventstore import ConcurrencyError


class TeapotError(ApiError):
    """I am a teapot."""

    status = 418
    code = "teapot"


@pytest.mark.parametrize(
    ("exception", "status", "code", "description"),
    [
        (TeapotError(), 418, "teapot", "I am a teapot."),
        (TeapotError("short and stout"), 418, "teapot", "short and stout"),
        (InvalidRequestError(), 400, "invalid_request", "The request is malformed."),
        (ConcurrencyError("x"), 409, "conflict", "Another request was first. Try again."),
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
    assert (response.status_code, response.data) == (status, {"error_code": code, "description": description})


def test_a_challenge():
    assert handle_exception(UnauthenticatedError(), {})["WWW-Authenticate"].startswith("Basic ")


def test_wait_a_while():
    response = handle_exception(exceptions.Throttled(wait=7.2), {})
    assert (response.status_code, response["Retry-After"]) == (429, "8")
    assert response.data["error_code"] == "too_many_requests"


def test_what_nobody_expected_is_left_to_django():
    assert handle_exception(RuntimeError(), {}) is None


def test_a_subclass_may_change_the_code_alone():
    class OtherError(ConflictError):
        """Other."""

        code = "other"

    assert (OtherError().status, OtherError().code, str(OtherError())) == (409, "other", "Other.")
