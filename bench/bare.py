"""One row by its primary key, through a serializer: the least that Django REST framework can do for an answer."""

from typing import Any

from django.urls import path
from rest_framework import serializers
from rest_framework.generics import RetrieveAPIView

from accounts.roles import Permission
from rollout.models import Rollout
from rollout.projections.counters import COUNTERS


class RowSerializer(serializers.ModelSerializer[Rollout]):
    """The facts that the rollout's own answer gives."""

    class Meta:
        model = Rollout
        fields = ("uid", "action", "module_name", "version", "phase", "created_at", "finished_at", "total", *COUNTERS)


class RowView(RetrieveAPIView[Rollout]):
    permissions = {"GET": Permission.VIEW_CLUSTER_MODULES}
    queryset = Rollout.objects.all()
    serializer_class: Any = RowSerializer


urlpatterns = [path("v2/rollouts/<str:pk>", RowView.as_view())]
