"""Modules, and one module with all its versions."""

from django.http import HttpRequest, HttpResponseBase

from accounts.roles import Permission
from console.page import answer, page


@page(sees=Permission.VIEW_CLUSTER_MODULES)
def modules(request: HttpRequest) -> HttpResponseBase:
    return answer(request, "console/base.html", title="Modules")


@page(sees=Permission.VIEW_CLUSTER_MODULES)
def module(request: HttpRequest, name: str) -> HttpResponseBase:
    return answer(request, "console/base.html", title=name)
