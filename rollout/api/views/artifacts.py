"""The vendor's routes for the artifacts on the local node."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.errors import ModulesUploadDisabledError
from accounts.selectors import require_modules_upload_allowed
from api.errors import NotFoundError, StorageFullError, StorageUnavailableError
from api.fields import NothingSerializer
from api.idempotency import KeyReusedError, digest_of, keep_response, stored_response
from api.refusals import refuses
from api.vendor import VendorViewSet
from artifacts_app.errors import (
    ArtifactExistsError,
    ArtifactNotFoundError,
    ArtifactTooLargeError,
    InvalidArtifactMetadataError,
    NoModuleError,
    UnreadableArtifactError,
)
from artifacts_app.serializers import UPLOAD
from artifacts_app.services import add_build
from artifacts_app.uploads import PackageUploadView
from artifacts_app.views import ArtifactViewSet, version_in_path
from modules_app.errors import MetadataMismatchError, ModuleInUseError, ModuleNameTakenError, NoSuchModuleError
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


class LocalArtifactViewSet(PackageUploadView, VendorViewSet):
    permissions = ArtifactViewSet.permissions

    @extend_schema(responses=LocalArtifactSerializer(many=True))
    @refuses(NoLocalNodeError)
    def list(self, request: Request) -> Response:
        """List the artifacts on the local node."""
        return Response(local_artifacts(local_node.node_of(request.get_host()).name))

    @extend_schema(request=UPLOAD, responses={200: NothingSerializer})
    @refuses(
        ModulesUploadDisabledError,
        NoModuleError,
        UnreadableArtifactError,
        InvalidArtifactMetadataError,
        ArtifactTooLargeError,
        StorageFullError,
        StorageUnavailableError,
        ArtifactExistsError,
        MetadataMismatchError,
        ModuleNameTakenError,
        KeyReusedError,
        NoLocalNodeError,
        RolloutInProgressError,
        NodeRefusedError,
        NodeUnreachableError,
        FleetFrozenError,
    )
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
    @refuses(
        ArtifactNotFoundError,
        NoSuchModuleError,
        NotFoundError,
        NoLocalNodeError,
        ModuleInUseError,
        RolloutInProgressError,
        NodeRefusedError,
        NodeUnreachableError,
        FleetFrozenError,
    )
    def destroy(self, request: Request, module_name: str, version: str) -> Response:
        """Delete an artifact from the local node, and wait until it is gone."""
        local_node.remove(local_node.node_of(request.get_host()), module_name, version_in_path(version))
        return Response({})
