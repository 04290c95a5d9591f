from django.urls import path

from artifacts_app.views import DownloadView

urlpatterns = [path("v2/downloads/<str:signed>", DownloadView.as_view())]
