"""Limits of requests and uploads: per user, or per client address without a user."""

from typing import TYPE_CHECKING

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from accounts.models import User
from api.client_address import client_address
from api.rate_limits import RateLimit

if TYPE_CHECKING:
    from rest_framework.views import APIView  # it imports this module, by the settings

requests = RateLimit()
uploads = RateLimit()


class RequestThrottle(BaseThrottle):
    """Raises: `TooManyRequestsError`."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        requests.take(_caller(request), "requests", per_minute=settings.ENVIRONMENT.requests_per_minute)
        return True


class UploadThrottle(BaseThrottle):
    """Checked before the body is read. Raises: `TooManyRequestsError`."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        if request.method == "POST":
            uploads.take(_caller(request), "uploads", per_minute=settings.ENVIRONMENT.uploads_per_minute)
        return True


def _caller(request: Request) -> int | str:
    """Return the user's uid, or else the client's address."""
    return request.user.uid if isinstance(request.user, User) else client_address(request.META)
