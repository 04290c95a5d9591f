"""`/v2/freeze`."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.roles import Permission
from rollout.api.serializers.freeze import FreezeSerializer, ReasonSerializer
from rollout.queries.freeze import freeze_document
from rollout.services.freeze import freeze_fleet, thaw_fleet


class FreezeViewSet(ViewSet):
    permissions = {
        "GET": Permission.VIEW_CLUSTER_MODULES,
        "POST": Permission.MANAGE_CLUSTER_MODULES,
        "DELETE": Permission.MANAGE_CLUSTER_MODULES,
    }

    @extend_schema(responses=FreezeSerializer)
    def retrieve(self, request: Request) -> Response:
        """Return whether the fleet is frozen, with the reason, the user and the time."""
        return Response(freeze_document())

    @extend_schema(request=ReasonSerializer, responses={200: FreezeSerializer})
    def create(self, request: Request) -> Response:
        """Freeze the fleet: no rollout releases nodes until it is thawed. Operations in progress continue."""
        serializer = ReasonSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        freeze_fleet(serializer.validated_data["reason"])
        return Response(freeze_document())

    @extend_schema(responses={200: FreezeSerializer})
    def destroy(self, request: Request) -> Response:
        """Thaw the fleet."""
        thaw_fleet()
        return Response(freeze_document())
