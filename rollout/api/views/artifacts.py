"""The vendor's routes for the artifacts on the local node."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.selectors import require_modules_upload_allowed
from api.errors import NotFoundError
from api.fields import NothingSerializer
from api.idempotency import digest_of, keep_response, stored_response
from api.refusals import refuses
from api.vendor import VendorViewSet
from artifacts_app.errors import ArtifactNotFoundError
from artifacts_app.serializers import UPLOAD
from artifacts_app.services import add_build
from artifacts_app.uploads import PackageUploadView
from artifacts_app.views import UPLOAD_REFUSALS, ArtifactViewSet, version_in_path
from modules_app.errors import ModuleInUseError, NoSuchModuleError
from rollout.api.serializers.artifacts import LocalArtifactSerializer
from rollout.domain.errors import (
    FleetFrozenError,
    NodeRefusedError,
    NodeUnreachableError,
    NoLocalNodeError,
    RolloutInProgressError,
)
from rollout.queries.modules import local_artifacts
from rollout.services import local_node

#: The errors of each route that changes the local node.
_LOCAL_REFUSALS = (
    NoLocalNodeError,
    RolloutInProgressError,
    NodeRefusedError,
    NodeUnreachableError,
    FleetFrozenError,
)


class LocalArtifactViewSet(PackageUploadView, VendorViewSet):
    permissions = ArtifactViewSet.permissions

    @extend_schema(responses=LocalArtifactSerializer(many=True))
    @refuses(NoLocalNodeError)
    def list(self, request: Request) -> Response:
        """List the artifacts on the local node."""
        return Response(local_artifacts(local_node.node_of(request.get_host()).name))

    @extend_schema(request=UPLOAD, responses={200: NothingSerializer})
    @refuses(*UPLOAD_REFUSALS, *_LOCAL_REFUSALS)
    def create(self, request: Request) -> Response:
        """Upload an artifact to the local node, and wait until it is there."""
        require_modules_upload_allowed()
        node = local_node.node_of(request.get_host())
        with self.received_package(request) as package:
            digest = digest_of(request, package.sha256)
            if (stored := stored_response(request, digest)) is not None:
                return stored
            upload = add_build(package)
        local_node.install(node, upload.module_name, upload.version)
        return keep_response(request, digest, Response({}))

    @extend_schema(responses={200: NothingSerializer})
    @refuses(ArtifactNotFoundError, NoSuchModuleError, NotFoundError, ModuleInUseError, *_LOCAL_REFUSALS)
    def destroy(self, request: Request, module_name: str, version: str) -> Response:
        """Delete an artifact from the local node, and wait until it is gone."""
        local_node.remove(local_node.node_of(request.get_host()), module_name, version_in_path(version))
        return Response({})
