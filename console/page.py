"""Decorator and response for the console's pages.

@page(sees=Permission.VIEW_CLUSTER_MODULES, changes=Permission.MANAGE_CLUSTER_MODULES)
def greet(request: HttpRequest, name: str) -> HttpResponseBase:
    return answer(request, "console/greet.html", title="Greet", trail=[Crumb(text="Modules", url=...)], name=name)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed
from django.template.response import TemplateResponse

from accounts.roles import Permission
from accounts.selectors import may

P = ParamSpec("P")
View = Callable[P, HttpResponseBase]

_SAFE = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Crumb:
    """One link of the breadcrumb, which has no link for the home page and the page itself."""

    text: str
    url: str


def page(*, sees: Permission | None, changes: Permission | None = None) -> Callable[[View[P]], View[P]]:
    """Return a decorator for a view that needs a login and permissions.

    GET needs the permission `sees` (None: any role of the admin site), POST needs `changes` (None: POST gives 405).
    A user without the permission gets 403. A visitor without a login is redirected to the login page.
    """

    def declare(view: View[P]) -> View[P]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            request = args[0]
            assert isinstance(request, HttpRequest)  # noqa: S101  # Django passes the request first
            if request.method not in _SAFE and (request.method != "POST" or changes is None):
                return HttpResponseNotAllowed(["GET", "HEAD", *(["POST"] if changes else [])])
            needed = sees if request.method in _SAFE else changes
            if needed is not None and not may(request.user, needed):
                raise PermissionDenied
            return view(*args, **kwargs)

        return admin.site.admin_view(guarded)

    return declare


def answer(
    request: HttpRequest,
    template: str,
    *,
    title: str,
    trail: Sequence[Crumb] = (),
    status: int = 200,
    **context: Any,
) -> TemplateResponse:
    """Return the page. Its template extends `console/base.html`, which lists the blocks."""
    request.current_app = admin.site.name  # templates resolve `admin:` URLs by it
    context = {**admin.site.each_context(request), "title": title, "trail": trail, **context}
    return TemplateResponse(request, template, context, status=status)
