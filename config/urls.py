"""Every route of the control plane. None ends in a slash, but for the admin site's own."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("accounts.urls")),
    path("admin/", admin.site.urls),
]

handler400 = "api.errors.handle_400"
handler403 = "api.errors.handle_403"
handler404 = "api.errors.handle_404"
handler500 = "api.errors.handle_500"
