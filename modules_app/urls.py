from django.urls import path

from modules_app.views import ModuleViewSet

urlpatterns = [
    path("v2/modules/user-defined", ModuleViewSet.as_view({"get": "list", "post": "create"})),
    path("v2/modules/user-defined/<str:uid>", ModuleViewSet.as_view({"get": "retrieve", "delete": "destroy"})),
]
