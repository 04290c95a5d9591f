"""What a page of the admin site may load and run: what comes from its own host, should anything ever get through the
escaping."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

#: Alpine, which unfold's pages are made with, evaluates its attributes; bars and colours are styles of elements.
_RULES = (
    "default-src 'self'",
    "script-src 'self' 'unsafe-eval'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
)
POLICY = "; ".join(_RULES)


class PolicyMiddleware:
    """Adds the policy to every answer below `/admin/`."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        if request.path.startswith("/admin/"):
            response["Content-Security-Policy"] = POLICY
        return response
