"""Takes a package from a browser."""

from django.http import HttpRequest, HttpResponseBase

from accounts.roles import Permission
from console.page import answer, page


@page(sees=Permission.MANAGE_CLUSTER_MODULES, changes=Permission.MANAGE_CLUSTER_MODULES)
def upload(request: HttpRequest) -> HttpResponseBase:
    return answer(request, "console/base.html", title="Upload a package")
