"""The errors of each operation, in addition to those that all operations share: for the OpenAPI document."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from api.errors import (
    ApiError,
    BodyTooSlowError,
    ConflictError,
    InvalidRequestError,
    PayloadTooLargeError,
    PermissionDeniedError,
    TooManyBodiesError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnsupportedMediaTypeError,
)
from api.statuses import status_of

Handler = TypeVar("Handler", bound=Callable[..., Any])
Errors = tuple[type[ApiError], ...]

_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def refuses(*errors: type[ApiError]) -> Callable[[Handler], Handler]:
    """Declare the errors that a view's handler raises."""

    def mark(handler: Handler) -> Handler:
        handler.refusals = errors  # type: ignore[attr-defined]  # an attribute of a function
        return handler

    return mark


def codes_of(errors: Iterable[type[ApiError]]) -> set[str]:
    """Return every `error_code` of these errors."""
    return {code for each in errors for code in (each.code, *each.codes)}


def refusals_of(handler: Callable[..., Any], method: str, *, public: bool, takes_body: bool) -> Errors:
    """Return all errors of an operation with this method, by status and code."""
    errors = {InvalidRequestError, TooManyRequestsError, *getattr(handler, "refusals", ())}
    if not public:
        errors |= {UnauthenticatedError, PermissionDeniedError}
    if takes_body:
        errors |= {PayloadTooLargeError, UnsupportedMediaTypeError, BodyTooSlowError}
    if takes_body and public:
        errors |= {TooManyBodiesError}
    if method in _CHANGING:
        errors |= {ConflictError}
    return tuple(sorted(errors, key=lambda each: (status_of(each), each.code, each.__name__)))
