"""The admin site as the console: its home page, sidebar and pages, next to the lists that the apps register."""

from typing import Any

from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern
from unfold.sites import UnfoldAdminSite

from console.navigation import navigation

#: Unfold's names of the themes, and the labels of their buttons.
THEMES = (("light", "Light"), ("dark", "Dark"), ("auto", "Auto"))


class ConsoleSite(UnfoldAdminSite):
    index_title = "Overview"
    enable_nav_sidebar = True

    def extra_urls(self) -> list[URLPattern]:
        from console.urls import urlpatterns  # its views need this site

        return urlpatterns

    def extra_context(self, context: dict[str, Any], request: HttpRequest) -> dict[str, Any]:
        ours = {
            "sidebar_navigation": navigation(request),
            "templates": {"navigation": "console/navigation.html"},
            "themes": THEMES,
        }
        return {**context, **ours}

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        from console.views.home import home

        return home(request)
