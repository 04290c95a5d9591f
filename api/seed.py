"""The seed's routes answer only the status codes that the vendor's page documents: a conflict is 406 there."""

from http import HTTPStatus

from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from api.errors import ApiError


class InvalidModuleJsonError(ApiError):
    """The request's body is no module object."""

    status = HTTPStatus.NOT_ACCEPTABLE
    code = "invalid_module"


class SeedViewSet(ViewSet):
    invalid_json = InvalidModuleJsonError

    def handle_exception(self, exc: Exception) -> Response:
        response = super().handle_exception(exc)
        if response.status_code == HTTPStatus.CONFLICT:
            response.status_code = HTTPStatus.NOT_ACCEPTABLE
        return response
