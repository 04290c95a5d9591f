"""`/v2/ignored-replicas`."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.roles import Permission
from api.fields import NothingSerializer
from api.pagination import Listing, page_of, paginate
from api.refusals import refuses
from rollout.api.filters import IgnoredReplicaFilters
from rollout.api.serializers.ignored_replicas import IgnoredReplicaSerializer, NewIgnoredReplicaSerializer
from rollout.api.views.join_tokens import LOCATION
from rollout.domain.errors import IgnoredReplicaNotFoundError, InvalidAddressError
from rollout.domain.topology.addresses import checked_replica
from rollout.queries.ignored_replicas import ignored_documents, ignored_replica, ignored_replicas
from rollout.services.ignored_replicas import ignore_replica, unignore_replica

REPLICAS = Listing(
    orders={"address": ("address",), "ignored_at": ("position",)}, default="address", filters=IgnoredReplicaFilters
)


class IgnoredReplicaViewSet(ViewSet):
    permissions = {
        "GET": Permission.VIEW_CLUSTER_MODULES,
        "POST": Permission.MANAGE_CLUSTER_MODULES,
        "DELETE": Permission.MANAGE_CLUSTER_MODULES,
    }

    @extend_schema(parameters=REPLICAS.parameters, responses=page_of(IgnoredReplicaSerializer))
    def list(self, request: Request) -> Response:
        """List the replicas that are no nodes and that a person has accepted, by address."""
        return paginate(request, ignored_replicas(), REPLICAS, serialize=ignored_documents)

    @extend_schema(
        request=NewIgnoredReplicaSerializer, responses={201: IgnoredReplicaSerializer}, parameters=[LOCATION]
    )
    @refuses(InvalidAddressError)
    def create(self, request: Request) -> Response:
        """Ignore a replica that is no node: its master gets modules although the replica does not. If the replica is ignored
        already, the first reason stays."""
        serializer = NewIgnoredReplicaSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        address = ignore_replica(serializer.validated_data["address"], reason=serializer.validated_data["reason"])
        location = request.build_absolute_uri(f"/v2/ignored-replicas/{address}")
        return Response(_document(address), status=201, headers={"Location": location})

    @extend_schema(responses=IgnoredReplicaSerializer)
    @refuses(InvalidAddressError, IgnoredReplicaNotFoundError)
    def retrieve(self, request: Request, address: str) -> Response:
        """Return one ignored replica."""
        return Response(_document(checked_replica(address)))

    @extend_schema(responses={200: NothingSerializer})
    @refuses(InvalidAddressError, IgnoredReplicaNotFoundError)
    def destroy(self, request: Request, address: str) -> Response:
        """Stop ignoring the replica: its master gets no module while the replica is no node."""
        unignore_replica(address)
        return Response({})


def _document(address: str) -> dict[str, Any]:
    (document,) = ignored_documents([ignored_replica(address)])
    return document
