"""Every route of the control plane. None ends in a slash, but for the admin site's own."""

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularSwaggerView

from api.schema import SchemaView

urlpatterns = [
    path("", include("accounts.urls")),
    path("", include("artifacts_app.urls")),
    # In this order: `v2/modules/user-defined/<uid>` would catch `.../artifacts`, and `v2/modules/<uid>` either.
    path("", include("rollout.api.urls")),
    path("", include("modules_app.urls")),
    path("", include("rollout.api.vendor_urls")),
    path("", include("webhooks.urls")),
    path("", include("operations.urls")),
    path("schema", SchemaView.as_view(), name="schema"),
    path("docs", SpectacularSwaggerView.as_view(url_name="schema", http_method_names=["get", "head"]), name="docs"),
    path("admin/", admin.site.urls),
]

handler400 = "api.handlers.handle_400"
handler403 = "api.handlers.handle_403"
handler404 = "api.handlers.handle_404"
handler500 = "api.handlers.handle_500"
