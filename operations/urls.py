from django.urls import path

from operations.views import MetricsView

urlpatterns = [path("metrics", MetricsView.as_view())]
