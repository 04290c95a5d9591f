from django.urls import path

from webhooks.views import WebhookViewSet

urlpatterns = [
    path("v2/webhooks", WebhookViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "v2/webhooks/<str:uid>",
        WebhookViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("v2/webhooks/<str:uid>/test", WebhookViewSet.as_view({"post": "test"})),
]
