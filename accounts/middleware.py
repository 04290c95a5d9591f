"""Makes whoever is logged in to the admin site the actor of what is recorded."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from eventstore import set_person


class SessionActorMiddleware:
    """Asks the database only for requests that carry a session."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if settings.SESSION_COOKIE_NAME in request.COOKIES and request.user.is_authenticated:
            set_person(request.user.get_username())
        return self._get_response(request)
