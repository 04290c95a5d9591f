from django.urls import path

from artifacts_app.views import ArtifactViewSet, DownloadView

urlpatterns = [
    path("v2/downloads/<str:signed>", DownloadView.as_view()),
    path("v2/modules/user-defined/artifacts", ArtifactViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "v2/modules/user-defined/artifacts/<str:module_name>/<str:version>",
        ArtifactViewSet.as_view({"get": "retrieve", "delete": "destroy"}),
    ),
]
