"""The home page."""

from django.http import HttpRequest
from django.template.response import TemplateResponse

from console.page import answer


def home(request: HttpRequest) -> TemplateResponse:
    return answer(request, "console/home.html", title="Overview")
