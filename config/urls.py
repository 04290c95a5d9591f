"""Every route of the control plane. None ends in a slash, but for the admin site's own."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("accounts.urls")),
    path("admin/", admin.site.urls),
]
