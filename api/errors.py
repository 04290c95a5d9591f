"""Errors as clients see them: a stable code, a description, and a kind. Knows neither HTTP nor Django.

Each app raises subclasses of `ApiError`, its deciders too. `api.statuses` maps kinds to HTTP statuses and headers, and
`api.handlers` turns exceptions into answers.
"""

from enum import Enum, auto
from math import ceil


class Kind(Enum):
    """What sort of error it is, whatever the protocol."""

    #: The request is malformed, or has a value that cannot be used.
    INVALID = auto()
    UNAUTHENTICATED = auto()
    FORBIDDEN = auto()
    NOT_FOUND = auto()
    #: The object existed, and exists no more.
    GONE = auto()
    #: The current state does not allow this.
    CONFLICT = auto()
    #: The object itself is refused.
    NOT_ACCEPTABLE = auto()
    TOO_LARGE = auto()
    TOO_SLOW = auto()
    TOO_MANY = auto()
    UNKNOWN_METHOD = auto()
    UNKNOWN_MEDIA_TYPE = auto()
    #: Something that is needed cannot be used now.
    UNAVAILABLE = auto()
    #: A disk is full.
    FULL = auto()
    INTERNAL = auto()


class ApiError(Exception):
    """The request was refused."""

    kind: Kind = Kind.INTERNAL
    #: Stable and meant for machines: `error_code` of the answer.
    code: str = "internal_error"
    #: All values of `code`, if there are several.
    codes: tuple[str, ...] = ()
    #: When to repeat the request, seconds; None if a repetition does not help by itself.
    retry_after_seconds: int | None = None

    def __init__(self, description: str = "") -> None:
        #: Meant for people. Default: the docstring of the class.
        self.description = description or (type(self).__doc__ or "").strip()
        super().__init__(self.description)


class InvalidRequestError(ApiError):
    """The request is malformed."""

    kind = Kind.INVALID
    code = "invalid_request"


class InvalidJsonError(InvalidRequestError):
    """The request's body is not JSON."""


class UnauthenticatedError(ApiError):
    """The credentials are missing or wrong."""

    kind = Kind.UNAUTHENTICATED
    code = "unauthenticated"


class PermissionDeniedError(ApiError):
    """Your role does not allow this."""

    kind = Kind.FORBIDDEN
    code = "permission_denied"


class NotFoundError(ApiError):
    """There is no such object."""

    kind = Kind.NOT_FOUND
    code = "not_found"


class NotAcceptableError(ApiError):
    """The object is not acceptable."""

    kind = Kind.NOT_ACCEPTABLE
    code = "not_acceptable"


class ConflictError(ApiError):
    """Another request was first. Try again."""

    kind = Kind.CONFLICT
    code = "conflict"


class PayloadTooLargeError(ApiError):
    """The request's body is too large."""

    kind = Kind.TOO_LARGE
    code = "payload_too_large"


class MethodNotAllowedError(ApiError):
    """This path does not support this method."""

    kind = Kind.UNKNOWN_METHOD
    code = "method_not_allowed"


class UnsupportedMediaTypeError(ApiError):
    """This path does not support the Content-Type of the request's body."""

    kind = Kind.UNKNOWN_MEDIA_TYPE
    code = "unsupported_media_type"


class BodyTooSlowError(ApiError):
    """The request's body arrived too slowly. The rest was not read."""

    kind = Kind.TOO_SLOW
    code = "body_too_slow"


class TooManyBodiesError(ApiError):
    """Too many requests without credentials send their bodies slowly. Try again, and send the body at once."""

    kind = Kind.TOO_MANY
    code = "too_many_bodies"
    retry_after_seconds = 5


class TooManyRequestsError(ApiError):
    """Too many requests. Wait for the seconds in Retry-After."""

    kind = Kind.TOO_MANY
    code = "too_many_requests"

    def __init__(self, description: str = "", *, seconds: float = 1.0) -> None:
        super().__init__(description)
        self.retry_after_seconds = max(1, ceil(seconds))


class DatabaseUnavailableError(ApiError):
    """The database cannot be used now. The request was not carried out, unless the database was lost during its commit.
    Check, or send the request again with the same Idempotency-Key."""

    kind = Kind.UNAVAILABLE
    code = "database_unavailable"
    retry_after_seconds = 5


class StorageUnavailableError(ApiError):
    """The storage of packages cannot be used now. The package was not stored."""

    kind = Kind.UNAVAILABLE
    code = "storage_unavailable"
    retry_after_seconds = 10


class StorageFullError(ApiError):
    """A disk of the control plane is full: that of the database, or of the packages. Nothing was changed. The vendor's
    user-defined module routes answer 503."""

    kind = Kind.FULL
    code = "storage_full"
    retry_after_seconds = 60
