from django.urls import path

from rollout.api.views.vendor import ActionViewSet, VendorModuleViewSet, VendorNodeViewSet

urlpatterns = [
    path("v1/modules", VendorModuleViewSet.as_view({"get": "list", "post": "create_v1"})),
    path("v1/modules/<str:uid>", VendorModuleViewSet.as_view({"get": "retrieve", "delete": "destroy"})),
    path("v2/modules", VendorModuleViewSet.as_view({"post": "create"})),
    path("v2/modules/<str:uid>", VendorModuleViewSet.as_view({"delete": "destroy"})),
    path("v1/actions", ActionViewSet.as_view({"get": "list"})),
    path("v1/actions/<str:uid>", ActionViewSet.as_view({"get": "retrieve"})),
    path("v1/nodes", VendorNodeViewSet.as_view({"get": "list"})),
    path("v1/nodes/<str:uid>", VendorNodeViewSet.as_view({"get": "retrieve"})),
]
