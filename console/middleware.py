"""The content security policy of the admin site: pages load and run only what their own host serves.

It limits the damage if text ever gets past the escaping.
"""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

#: Unfold's pages use Alpine, which evaluates attributes (`unsafe-eval`). Bars set inline styles (`unsafe-inline`).
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
    """Adds the policy to every response below `/admin/`."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        if request.path.startswith("/admin/"):
            response["Content-Security-Policy"] = POLICY
        return response
