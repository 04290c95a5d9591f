"""Sets the user of the admin site as the actor of recorded events."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from eventstore import set_person


class SessionActorMiddleware:
    """Reads the database only for requests with a session."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if settings.SESSION_COOKIE_NAME in request.COOKIES and request.user.is_authenticated:
            set_person(request.user.get_username())
        return self._get_response(request)
