"""How a page of the console is declared and answered.

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
    """A step of the trail above a page's title; neither the page itself nor the home page is one."""

    text: str
    url: str


def page(*, sees: Permission | None, changes: Permission | None = None) -> Callable[[View[P]], View[P]]:
    """For those who are signed in to the admin site; others are led to the login, a role that may not gets 403.

    GET asks for `sees` (None: any role that gets in at all), POST for `changes`; without it there is no POST.
    """

    def declare(view: View[P]) -> View[P]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            request = args[0]
            assert isinstance(request, HttpRequest)  # noqa: S101  # Django hands it over first
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
    """The page; its template extends `console/base.html`, which says what blocks there are."""
    request.current_app = admin.site.name  # where templates look for `admin:` URLs
    context = {**admin.site.each_context(request), "title": title, "trail": trail, **context}
    return TemplateResponse(request, template, context, status=status)
