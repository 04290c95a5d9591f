"""Errors as clients see them: `{"error_code", "description"}` and a status. Knows no Django: deciders raise them too.

Other code raises a subclass of `ApiError`; only `api.handlers` turns an exception into an answer.
"""

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil

#: The challenge of a 401 answer, unless the view has another one.
BASIC_CHALLENGE = 'Basic realm="modfleet", charset="UTF-8"'


class ApiError(Exception):
    """The request was refused."""

    #: The HTTP status of the answer.
    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    #: The `error_code` of the answer. Stable, for machines.
    code: str = "internal_error"
    #: All values of `code`, if there are several.
    codes: tuple[str, ...] = ()
    #: Headers of the answer.
    headers: Mapping[str, str] = {}

    def __init__(self, description: str = "") -> None:
        #: For people. Default: the docstring of the class.
        self.description = description or (type(self).__doc__ or "").strip()
        super().__init__(self.description)


class InvalidRequestError(ApiError):
    """The request is malformed."""

    status = HTTPStatus.BAD_REQUEST
    code = "invalid_request"


class InvalidJsonError(InvalidRequestError):
    """The request's body is not JSON."""


class UnauthenticatedError(ApiError):
    """The credentials are missing or wrong."""

    status = HTTPStatus.UNAUTHORIZED
    code = "unauthenticated"
    headers = {"WWW-Authenticate": BASIC_CHALLENGE}


class PermissionDeniedError(ApiError):
    """Your role does not allow this."""

    status = HTTPStatus.FORBIDDEN
    code = "permission_denied"


class NotFoundError(ApiError):
    """There is no such object."""

    status = HTTPStatus.NOT_FOUND
    code = "not_found"


class NotAcceptableError(ApiError):
    """The object is not acceptable."""

    status = HTTPStatus.NOT_ACCEPTABLE
    code = "not_acceptable"


class ConflictError(ApiError):
    """Another request was first. Try again."""

    status = HTTPStatus.CONFLICT
    code = "conflict"


class PayloadTooLargeError(ApiError):
    """The request's body is too large."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "payload_too_large"


class MethodNotAllowedError(ApiError):
    """This path does not support this method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "method_not_allowed"


class UnsupportedMediaTypeError(ApiError):
    """This path does not support the Content-Type of the request's body."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported_media_type"


class BodyTooSlowError(ApiError):
    """The request's body arrived too slowly. The rest was not read."""

    status = HTTPStatus.REQUEST_TIMEOUT
    code = "body_too_slow"


class TooManyBodiesError(ApiError):
    """Too many requests without credentials send their bodies slowly. Try again, and send the body at once."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "too_many_bodies"
    headers = {"Retry-After": "5"}


class TooManyRequestsError(ApiError):
    """Too many requests. Wait for the seconds in Retry-After."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "too_many_requests"

    def __init__(self, description: str = "", *, seconds: float = 1.0) -> None:
        super().__init__(description)
        self.headers = {"Retry-After": str(max(1, ceil(seconds)))}


class DatabaseUnavailableError(ApiError):
    """The database cannot be used now. The request was not carried out, unless the database was lost during its commit.
    Check, or send the request again with the same Idempotency-Key."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "database_unavailable"
    headers = {"Retry-After": "5"}


class StorageUnavailableError(ApiError):
    """The storage of packages cannot be used now. The package was not stored."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "storage_unavailable"
    headers = {"Retry-After": "10"}


class StorageFullError(ApiError):
    """A disk of the control plane is full: that of the database, or of the packages. Nothing was changed. The vendor's
    user-defined module routes answer 503."""

    status = HTTPStatus.INSUFFICIENT_STORAGE
    code = "storage_full"
    headers = {"Retry-After": "60"}
