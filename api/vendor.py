"""The vendor's user-defined module routes answer only the status codes that the vendor's page documents.

A conflict is 406 there, and a full disk is 503.
"""

from http import HTTPStatus

from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from api.errors import ApiError, Kind


class InvalidModuleJsonError(ApiError):
    """The request's body is not a module object."""

    kind = Kind.NOT_ACCEPTABLE
    code = "invalid_module"


#: The documented status for each status that the page does not have.
DOCUMENTED = {
    HTTPStatus.CONFLICT: HTTPStatus.NOT_ACCEPTABLE,
    HTTPStatus.INSUFFICIENT_STORAGE: HTTPStatus.SERVICE_UNAVAILABLE,
}


class VendorViewSet(ViewSet):
    invalid_json = InvalidModuleJsonError

    def handle_exception(self, exc: Exception) -> Response:
        response = super().handle_exception(exc)
        response.status_code = DOCUMENTED.get(HTTPStatus(response.status_code), response.status_code)
        return response
